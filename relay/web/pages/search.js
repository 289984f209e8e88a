// What a search found, best first, each with its place. The address is the state: what was typed, and filters.

import { get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, size, t, when } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { marks } from "../lib/marks.js";
import { kindOf, parentPath, segments, shown } from "../lib/names.js";
import { href } from "../lib/router.js";
import { busy, button, emptyState, failure } from "../ui/controls.js";
import { icon } from "../ui/icons.js";
import { queryOf } from "../ui/search.js";
import { toastError } from "../ui/toast.js";

const TYPES = ["directory", "document", "image", "video", "audio", "archive"];
const SINCE_DAYS = ["1", "7", "30", "365"];
const SIZES = ["1000000", "100000000", "1000000000"];
const DAY_MS = 86_400_000;

/** The filters of an address: `["type=image", "in=ID/a/b"]`. */
const filtersOf = (parts) => Object.fromEntries(parts.map((part) => part.split(/=(.*)/s).slice(0, 2)).filter(([, value]) => value));

export function create(shell, life) {
  return new SearchPage(shell, life);
}

class SearchPage {
  #shell;
  #text = "";
  #filters = {};
  #found = [];
  #turn = 0;

  constructor(shell, life) {
    this.#shell = shell;
    this.title = h("h1", { tabindex: "-1" }, t("search.title"));
    this.bar = h("div", { class: "filters", role: "group", "aria-label": t("search.filters") });
    this.status = h("p", { class: "soft", role: "status" });
    this.content = h("div", { class: "results" });
    this.content.addEventListener("keydown", (event) => this.#onKey(event));
    this.element = h("div", { class: "page" }, h("header", { class: "page-head" }, this.title), this.bar, this.status, this.content);
    // Only the first page is asked again by itself: what a person reads further down stays.
    life.add(shell.onChange(coalesced(() => this.#found.length <= 50 && this.#ask({ quietly: true }), 600)));
    life.add(() => (this.#turn += 1));
  }

  route([text, ...filters]) {
    this.#text = queryOf(text);
    this.#filters = filtersOf(filters);
    this.#shell.title(this.#text || t("search.title"));
    this.#drawFilters();
    this.#ask();
  }

  #parameters(cursor) {
    const { type, since, over, in: place } = this.#filters;
    const [space, ...names] = segments(place ?? "");
    return {
      q: this.#text, type, min_size: over, since: since && new Date(Date.now() - Number(since) * DAY_MS).toISOString(),
      space_id: space, path: names.length ? `/${names.join("/")}` : undefined, cursor, limit: 50,
    };
  }

  async #ask({ quietly = false } = {}) {
    const turn = ++this.#turn;
    if (!this.#text && !Object.keys(this.#filters).some((name) => name !== "in")) {
      this.#found = [];
      this.status.textContent = "";
      return replace(this.content, emptyState("search", t("search.begin"), t("search.beginText")));
    }
    this.element.setAttribute("aria-busy", "true");
    try {
      const page = await get(`/api/v1/search${query(this.#parameters())}`);
      if (turn === this.#turn) this.#show(page);
    } catch (error) {
      if (turn !== this.#turn || quietly) return;
      this.status.textContent = "";
      replace(this.content, failure(error, () => this.#ask()));
    } finally {
      if (turn === this.#turn) this.element.setAttribute("aria-busy", "false");
    }
  }

  #show(page) {
    this.#found = page.files;
    if (!page.files.length) {
      // Said to who listens; who looks reads it below.
      this.status.textContent = t("search.none");
      this.status.classList.add("unseen");
      return replace(this.content, emptyState("search", t("search.none"), t("search.noneText")));
    }
    const list = h("ul", { class: "rows" }, page.files.map((file) => this.#row(file)));
    const more = h("div", { class: "results-more" });
    replace(this.content, list, more);
    this.#rest(page, list, more);
  }

  #rest(page, list, more) {
    this.status.classList.remove("unseen");
    this.status.textContent = t(page.has_more ? "search.countMore" : "search.count", { count: this.#found.length });
    replace(more, page.has_more && button(t("action.showMore"), (event) => busy(event.currentTarget, async () => {
      const turn = this.#turn;
      const next = await get(`/api/v1/search${query(this.#parameters(page.cursor))}`);
      if (turn !== this.#turn) return;
      this.#found.push(...next.files);
      const rows = next.files.map((file) => this.#row(file));
      list.append(...rows);
      rows[0]?.querySelector("a").focus();
      this.#rest(next, list, more);
    }, toastError)));
  }

  #row(file) {
    const name = shown(file.file_name);
    const time = file.modified_at ?? file.updated_at;
    const facts = [file.kind === "file" ? size(file.file_size) : "", when(time)].filter(Boolean).join(" · ");
    return h("li", null, icon(kindOf(file), `kind-${kindOf(file)}`),
      h("a", { class: "rows-main result", href: this.#place(file), onclick: () => this.#want(file) },
        h("strong", null, marks(name, this.#text).map(([text, isFound]) => (isFound ? h("mark", null, text) : text)), file.is_conflict && h("span", { class: "tag warn" }, t("files.conflict"))),
        h("span", { class: "soft" }, this.#where(file))),
      h("span", { class: "soft result-facts", title: moment(time) }, facts));
  }

  /** The folders that it stands in, from the space on. */
  #where(file) {
    if (file.is_shared_file) return t("search.sharedFile");
    const names = segments(file.file_path).slice(0, -1).map(shown);
    return [shown(this.#shell.space(file.space_id)?.name ?? ""), ...names].join(" › ");
  }

  #place(file) {
    if (file.is_shared_file) return href("shared");
    return href("files", this.#shell.space(file.space_id).id, ...segments(file.kind === "directory" ? file.file_path : parentPath(file.file_path)));
  }

  /** The list of the place selects it. */
  #want(file) {
    if (file.kind !== "directory" && !file.is_shared_file) this.#shell.wanted = file;
  }

  #onKey(event) {
    const links = [...this.content.querySelectorAll("a.result")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (to < 0) this.#shell.search.input.focus();
    else links[Math.min(to, links.length - 1)].focus();
  }

  // --- filters ---

  #drawFilters() {
    const focused = this.bar.contains(document.activeElement) ? document.activeElement.name : null;
    const { place } = this.#shell;
    const spaces = this.#shell.spaces.get().map((space) => [space.id, shown(space.name)]);
    const here = place && place.path !== "/" ? [[[place.space.id, ...segments(place.path)].join("/"), t("search.here", { name: shown(segments(place.path).at(-1)) })]] : [];
    const places = [...here, ...(spaces.length > 1 ? spaces : [])];
    const chosen = this.#filters.in;
    if (chosen && !places.some(([value]) => value === chosen)) places.push([chosen, shown(segments(chosen).at(-1))]);
    replace(this.bar,
      this.#select("type", TYPES.map((type) => [type, t(`search.type.${type}`)])),
      this.#select("since", SINCE_DAYS.map((days) => [days, t(`search.since.${days}`)])),
      this.#select("over", SIZES.map((bytes) => [bytes, t("search.over", { size: size(Number(bytes)) })])),
      places.length > 0 && this.#select("in", places));
    if (focused) this.bar.querySelector(`[name="${focused}"]`)?.focus();
  }

  #select(name, options) {
    const element = h("select", { name, "aria-label": t(`search.by.${name}`), onchange: () => this.#filter(name, element.value) },
      [["", t(`search.any.${name}`)], ...options].map(([value, text]) => h("option", { value }, text)));
    element.value = this.#filters[name] ?? "";
    element.classList.toggle("set", element.value !== "");
    return element;
  }

  #filter(name, value) {
    const filters = { ...this.#filters, [name]: value };
    location.replace(href("search", `=${this.#text}`, ...Object.entries(filters).filter(([, one]) => one).map((pair) => pair.join("="))));
  }
}
