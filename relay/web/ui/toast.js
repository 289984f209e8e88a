// Short messages at the foot of the page, read out by screen readers; one can carry the way back.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { iconButton } from "./controls.js";

const STAYS_MS = 6000;
const SHOWN_MAX = 3;
const polite = h("div", { class: "toasts", role: "status", "aria-live": "polite" });

/** The element that shows them. */
export const toasts = () => polite;

/** Says something. `action: {label, run}`; an error stays until it is dismissed. */
export function toast(text, { action, error = false } = {}) {
  const element = h("div", { class: error ? "toast error" : "toast" }, h("span", null, text));
  const close = () => element.remove();
  if (action) {
    element.append(h("button", { type: "button", class: "link", onclick: () => { close(); action.run(); } }, action.label));
  }
  element.dataset.text = text;
  // The same said again is one message.
  for (const other of [...polite.children]) if (!action && other.dataset.text === text) other.remove();
  element.append(iconButton("close", t("action.dismiss"), close));
  polite.append(element);
  while (polite.children.length > SHOWN_MAX) polite.firstElementChild.remove();
  if (!error) {
    // Whoever points at it or is in it is reading it.
    const wait = () => setTimeout(() => (element.matches(":hover,:focus-within") ? wait() : close()), STAYS_MS);
    wait();
  }
}

/** Says what went wrong. */
export const toastError = (error) => {
  if (error?.name !== "AbortError") toast(error?.text ?? error?.message ?? String(error), { error: true });
};
