// Styles that the first view does without: they come with the first thing that needs them.

import { h } from "./dom.js";

const known = new Set();

/** Adds `styles/NAME.css` to the page, once. */
export function withStyle(name) {
  if (known.has(name)) return;
  known.add(name);
  document.head.append(h("link", { rel: "stylesheet", href: new URL(`../styles/${name}.css`, import.meta.url).href }));
}
