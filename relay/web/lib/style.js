// Styles that the first view does without: they come with the first thing that needs them.

import { h } from "./dom.js";

const known = new Map();

/**
 * Adds `styles/NAME.css` to the page, once.
 * @returns a promise: it is there, or did not come, and then the page does without
 */
export function withStyle(name) {
  if (!known.has(name)) {
    known.set(name, new Promise((go) => {
      const href = new URL(`../styles/${name}.css`, import.meta.url).href;
      document.head.append(h("link", { rel: "stylesheet", href, onload: go, onerror: go }));
    }));
  }
  return known.get(name);
}
