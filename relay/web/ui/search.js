// The field in the bar: what is typed there is searched over all folders. `/` goes to it, unless the person has turned such keys off.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { go, href, parse } from "../lib/router.js";
import { icon } from "./icons.js";

const SHORTCUTS = "ferry.shortcuts";
const PAUSE_MS = 220;

/** Whether single keys do something wherever the focus is. */
export const shortcuts = {
  get on() {
    return localStorage.getItem(SHORTCUTS) !== "off";
  },
  set on(on) {
    if (on) localStorage.removeItem(SHORTCUTS);
    else localStorage.setItem(SHORTCUTS, "off");
  },
};

export class SearchField {
  #timer = 0;

  constructor() {
    this.input = h("input", {
      type: "search", name: "q", "aria-label": t("search.label"), placeholder: t("search.placeholder"), autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 200, "aria-keyshortcuts": "/",
      oninput: () => this.#soon(), onkeydown: (event) => this.#onKey(event),
    });
    this.element = h("form", { class: "search", role: "search", onsubmit: (event) => { event.preventDefault(); this.#search(); } }, icon("search"), this.input);
    // Before the lists, which take letters for names.
    addEventListener("keydown", (event) => this.#fromAnywhere(event), true);
  }

  /** Where the person is now: elsewhere than at a search the field is empty. */
  route(parts) {
    if (document.activeElement === this.input && parts[0] === "search") return;
    clearTimeout(this.#timer);
    this.input.value = parts[0] === "search" ? queryOf(parts[1]) : "";
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#search(), PAUSE_MS);
  }

  #search() {
    clearTimeout(this.#timer);
    const text = this.input.value.trim();
    const [page, , ...filters] = parse(location.hash);
    if (page !== "search") {
      if (text) go("search", partOf(text));
    } else location.replace(href("search", partOf(text), ...filters));
  }

  #onKey(event) {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    document.querySelector(".results a")?.focus();
  }

  #fromAnywhere(event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || !shortcuts.on) return;
    if (event.target.closest?.("input,textarea,select,[contenteditable],dialog,[role=menu]")) return;
    event.preventDefault();
    event.stopPropagation();
    this.input.focus();
    this.input.select();
  }
}

// An address has no empty parts, so what was typed stands behind a sign.
const partOf = (text) => `=${text}`;

/** What was typed, from its part of the address. */
export const queryOf = (part = "") => part.replace(/^=/, "");
