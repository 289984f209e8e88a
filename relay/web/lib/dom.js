// Elements without HTML: whatever a user named reaches the page as text only (R46).

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element. Props: `class`, `dataset`, `on*` listeners, properties the element has (`value`, `disabled`, ...), attributes for the rest.
 * Children: nodes, text, arrays of them; null, undefined and false are left out.
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.setAttribute("class", value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean" || key === "value" || key === "textContent") element[key] = value;
    else element.setAttribute(key, value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child);
  }
}

/** Puts these children in the place of all others. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

let ids = 0;
/** An id that no other element has. */
export const uid = (prefix) => `${prefix}-${++ids}`;
