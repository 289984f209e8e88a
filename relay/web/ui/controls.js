// Small parts that all pages share.

import { h, uid } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { icon } from "./icons.js";

/** A button with text, and an icon before it if named. Kinds: "primary", "danger", "quiet". */
export function button(text, onclick, { kind = "", icon: name, type = "button", ...rest } = {}) {
  return h("button", { type, class: `button ${kind}`.trim(), onclick, ...rest }, name && icon(name), h("span", null, text));
}

/** A button that shows only an icon; its label is its name. */
export function iconButton(name, label, onclick, rest = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...rest }, icon(name));
}

/** A labelled input. `field.input`, `field.problem(text)`. */
export function field(label, { options, ...props } = {}, hint = "") {
  const id = uid("field");
  const error = h("p", { class: "field-error", id: `${id}-error`, hidden: true });
  const note = hint ? h("p", { class: "field-hint", id: `${id}-hint` }, hint) : null;
  const described = [hint && `${id}-hint`, `${id}-error`].filter(Boolean).join(" ");
  const input = h(options ? "select" : "input", { id, "aria-describedby": described, ...props });
  for (const [value, text] of options ?? []) input.append(h("option", { value }, text));
  const element = h("div", { class: "field" }, h("label", { for: id }, label), input, note, error);
  return {
    element,
    input,
    problem(text) {
      error.textContent = text ?? "";
      error.hidden = !text;
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
  };
}

/** What stands where a list would be when there is nothing in it. */
export function emptyState(name, title, text, ...actions) {
  return h("div", { class: "empty" }, icon(name, "large"), h("h2", null, title), text && h("p", null, text), h("div", { class: "empty-actions" }, actions));
}

/** What stands there when the relay could not be asked. */
export function failure(error, retry) {
  return h("div", { class: "empty", role: "alert" }, icon("conflict", "large"), h("h2", null, t("error.title")), h("p", null, error.text ?? String(error)),
    h("div", { class: "empty-actions" }, button(t("action.retry"), retry, { icon: "retry" })));
}

/** A page's frame: its title, actions beside it, content. */
export function page(title, actions, ...content) {
  return h("div", { class: "page" }, h("header", { class: "page-head" }, h("h1", { tabindex: "-1" }, title), h("div", { class: "page-actions" }, actions)), content);
}

/** Runs an action of a button: off while it runs, errors shown by `failed`. */
export async function busy(element, work, failed) {
  element.disabled = true;
  try {
    await work();
  } catch (error) {
    failed(error);
  } finally {
    element.disabled = false;
  }
}
