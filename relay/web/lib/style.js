// Styles that the first view does without: they come with the first thing that needs them.

import { h } from "./dom.js";

/** So long a style is waited for; the network may stall without an end. */
const WAIT_MS = 2000;

const known = new Map();

/**
 * Adds `styles/NAME.css` to the page, once; one that did not come is asked for again the next time.
 * @returns a promise: it is there, or has not come, and then the page does without
 */
export function withStyle(name) {
  if (!known.has(name)) {
    known.set(name, new Promise((go) => {
      const href = new URL(`../styles/${name}.css`, import.meta.url).href;
      const failed = () => {
        known.delete(name);
        link.remove();
        go();
      };
      const link = h("link", { rel: "stylesheet", href, onload: go, onerror: failed });
      document.head.append(link);
      setTimeout(go, WAIT_MS);
    }));
  }
  return known.get(name);
}
