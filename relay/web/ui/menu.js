// Menus: the context menu of files and the menus of buttons. WAI-ARIA menu pattern: arrows, Home, End, Escape, first letters.

import { h } from "../lib/dom.js";
import { icon } from "./icons.js";

let open = null;

/** Closes the menu that is open. */
export function closeMenu({ focus = true } = {}) {
  if (!open) return;
  const { element, back, off, anchor } = open;
  open = null;
  off.abort();
  element.remove();
  anchor?.setAttribute("aria-expanded", "false");
  if (focus) back?.focus?.();
}

/**
 * Opens a menu at a point, or below an element.
 * @param items `{label, icon, run, danger, key}`, or null for a line between groups
 * @param at `{x, y}` in the window, or an element
 * @param title a line above the items
 */
export function openMenu(items, at, label, { title } = {}) {
  closeMenu({ focus: false });
  const anchor = at instanceof Element ? at : null;
  const back = document.activeElement;
  const element = h("div", { class: "menu", role: "menu", "aria-label": label });
  // Its label says the same to who listens.
  if (title) element.append(h("p", { class: "menu-title", "aria-hidden": "true" }, title));
  for (const item of items) {
    if (!item) {
      if (element.lastElementChild) element.append(h("hr", { role: "separator" }));
      continue;
    }
    const run = () => {
      closeMenu();
      item.run();
    };
    element.append(h("button", { type: "button", role: "menuitem", tabindex: "-1", class: item.danger ? "danger" : "", onclick: run },
      icon(item.icon), h("span", null, item.label), item.key && h("kbd", { "aria-hidden": "true" }, item.key)));
  }
  // In the page's main part, where who listens to it looks for content.
  (document.querySelector("main") ?? document.body).append(element);
  const off = new AbortController();
  open = { element, back, off, anchor };
  anchor?.setAttribute("aria-expanded", "true");
  place(element, anchor ? below(anchor) : at);
  const buttons = [...element.querySelectorAll("[role=menuitem]")];
  buttons[0]?.focus();
  element.addEventListener("keydown", (event) => onKey(event, buttons));
  addEventListener("pointerdown", (event) => element.contains(event.target) || closeMenu({ focus: false }), { capture: true, signal: off.signal });
  addEventListener("blur", () => closeMenu(), { signal: off.signal });
  addEventListener("resize", () => closeMenu(), { signal: off.signal });
}

const below = (anchor) => {
  const box = anchor.getBoundingClientRect();
  return { x: box.left, y: box.bottom + 4, right: box.right };
};

// The only styles set by script are places, by properties that the policy on inline styles does not cover.
function place(element, { x, y, right }) {
  const { offsetWidth: width, offsetHeight: height } = element;
  const margin = 8;
  const left = right !== undefined && x + width > innerWidth - margin ? right - width : x;
  element.style.left = `${Math.max(margin, Math.min(left, innerWidth - width - margin))}px`;
  element.style.top = `${Math.max(margin, Math.min(y, innerHeight - height - margin))}px`;
}

function onKey(event, buttons) {
  const at = buttons.indexOf(document.activeElement);
  const to = {
    ArrowDown: () => buttons[(at + 1) % buttons.length],
    ArrowUp: () => buttons[(at - 1 + buttons.length) % buttons.length],
    Home: () => buttons[0],
    End: () => buttons.at(-1),
  }[event.key];
  event.stopPropagation();
  if (to) {
    event.preventDefault();
    to().focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    event.preventDefault();
    closeMenu();
  } else if (event.key.length === 1 && event.key !== " ") {
    const letter = event.key.toLowerCase();
    const rest = [...buttons.slice(at + 1), ...buttons.slice(0, at + 1)];
    rest.find((b) => b.textContent.trim().toLowerCase().startsWith(letter))?.focus();
  }
}
