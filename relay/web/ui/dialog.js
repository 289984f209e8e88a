// Dialogs on the browser's own <dialog>: focus is kept inside, Escape closes, focus goes back where it was.

import { h, uid } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { button, field, iconButton } from "./controls.js";

const DOUBLE_CLICK_MS = 500;

/**
 * Shows a dialog. `build(close)` gives its content; `close(value)` ends it.
 * @returns a promise of that value; undefined when it was dismissed
 */
export function dialog(title, build, { wide = false, className = "" } = {}) {
  return new Promise((resolve) => {
    const back = document.activeElement;
    const id = uid("dialog");
    let value;
    const element = h("dialog", { class: `dialog ${wide ? "wide" : ""} ${className}`.trim(), "aria-labelledby": id });
    const close = (result) => {
      value = result;
      element.close();
    };
    element.append(h("div", { class: "dialog-head" }, h("h2", { id }, title), iconButton("close", t("action.close"), () => close())));
    element.append(h("div", { class: "dialog-body" }, build(close, element)));
    element.addEventListener("close", () => {
      element.remove();
      back?.focus?.();
      resolve(value);
    });
    let openedAt = 0;
    element.addEventListener("pointerdown", (event) => {
      // The second half of a double click was meant for what opened it.
      if (event.target === element && event.timeStamp - openedAt > DOUBLE_CLICK_MS) close();
    });
    document.body.append(element);
    element.showModal();
    openedAt = performance.now();
    (element.querySelector("[autofocus]") ?? element.querySelector("input,select,textarea,.dialog-body button") ?? element).focus();
  });
}

/** Asks yes or no; the button says what happens. */
export function confirm(title, text, action, { kind = "danger" } = {}) {
  return dialog(title, (close) => [
    h("p", null, text),
    h("div", { class: "dialog-actions" }, button(t("action.cancel"), () => close(false)), button(action, () => close(true), { kind, autofocus: true })),
  ]);
}

/**
 * A form in a dialog. `fields`: `{name: [label, props, hint]}`; `submit(values)` may throw an error, which is shown, and the form stays.
 * @returns what `submit` gave
 */
export function form(title, fields, action, submit, { intro = "", kind = "primary", ready = () => {} } = {}) {
  return dialog(title, (close) => {
    const made = Object.fromEntries(Object.entries(fields).map(([name, [label, props, hint]]) => [name, field(label, { name, ...props }, hint)]));
    const parts = Object.values(made);
    const alert = h("p", { class: "field-error", role: "alert", hidden: true });
    const go = button(action, null, { kind, type: "submit" });
    const element = h("form", { class: "form", novalidate: true },
      intro && h("p", null, intro), parts.map((part) => part.element), alert,
      h("div", { class: "dialog-actions" }, button(t("action.cancel"), () => close()), go));
    element.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      alert.hidden = true;
      for (const part of parts) part.problem(null);
      try {
        close(await submit(Object.fromEntries(Object.entries(made).map(([name, part]) => [name, part.input.value]))) ?? true);
      } catch (error) {
        const where = error.field ? made[error.field] : parts.length === 1 ? parts[0] : null;
        const text = error.text ?? error.message;
        if (where) {
          where.problem(text);
          where.input.focus();
        } else {
          alert.textContent = text;
          alert.hidden = false;
        }
        go.disabled = false;
      }
    });
    queueMicrotask(() => ready(made));
    return element;
  });
}

/** Shows something that is shown once: codes, secrets. */
export function reveal(title, text, values) {
  return dialog(title, (close) => [
    h("p", null, text),
    h("div", { class: "secret" }, values.map((value) => h("code", null, value))),
    h("div", { class: "dialog-actions" },
      navigator.clipboard && button(t("action.copy"), () => navigator.clipboard.writeText(values.join("\n")), { icon: "copy" }),
      button(t("action.done"), () => close(true), { kind: "primary", autofocus: true })),
  ]);
}
