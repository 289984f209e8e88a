// The files of a directory: list or tiles, breadcrumbs, selection, keyboard, context menu, drop. The address is the state.

import { allPages, get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { collate, size, t, when, moment } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { joinPath, kindOf, parentPath, segments, shown, sorted } from "../lib/names.js";
import { go, href } from "../lib/router.js";
import { button, emptyState, failure, iconButton } from "../ui/controls.js";
import { Grid } from "../ui/grid.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { toast } from "../ui/toast.js";
import { canShare } from "../share/may.js";
import { Actions } from "./actions.js";
import { thumbnail } from "./thumbnail.js";
import { fromInput } from "../upload/gather.js";

const VIEW = "ferry.view";
const COLUMNS = ["name", "modified", "size"];
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 30_000;

const keyOf = (entry) => `${entry.file_id}/${entry.version_id ?? ""}`;

function readView() {
  try {
    const view = JSON.parse(localStorage.getItem(VIEW));
    return { sort: COLUMNS.includes(view.sort) ? view.sort : "name", descending: view.descending === true, tiles: view.tiles === true };
  } catch {
    return { sort: "name", descending: false, tiles: false };
  }
}

export class FilesPage {
  #shell;
  #view = readView();
  #path = "/";
  #space = null;
  #entries = [];
  #scrolls = new Map();
  #turn = 0;
  /** Whether `#entries` is all that is here, as far as this page has heard. */
  #whole = false;
  /** How often the list could not be read again, one time after the other. */
  #failures = 0;
  #retry = 0;

  constructor(shell, life) {
    this.#shell = shell;
    this.actions = new Actions(this, shell);
    this.grid = new Grid(t("files.label"), {
      key: keyOf,
      name: (entry) => entry.file_name,
      row: (entry, tiles) => (tiles ? this.#tile(entry) : this.#row(entry)),
      open: (entry) => this.open(entry),
      menu: (point) => this.#menu(point),
      changed: () => this.#drawTools(),
      command: (event) => this.#command(event),
    });
    this.crumbs = h("nav", { class: "crumbs", "aria-label": t("files.crumbs") });
    this.tools = h("div", { class: "tools" });
    this.heads = h("div", { class: "grid-head" });
    this.notice = h("div", { class: "files-notice" });
    this.status = h("p", { class: "status-line", role: "status" });
    this.hint = h("span");
    this.element = h("div", { class: "files" }, h("div", { class: "files-top" }, this.crumbs, this.tools), this.heads,
      h("div", { class: "grid-frame" }, this.grid.element, this.notice), this.status,
      h("div", { class: "drop-hint", "aria-hidden": "true" }, icon("upload", "large"), this.hint));
    this.refresh = coalesced(() => this.load());
    life.add(shell.onChange(({ space }) => {
      if (space === null) this.#takeSpaces();
      if (space === null || String(space) === String(this.#space?.id)) this.refresh();
    }));
    life.add(() => this.grid.end());
    life.add(() => clearTimeout(this.#retry));
    life.add(() => { this.#turn += 1; });
    life.listen(document, "paste", (event) => this.#paste(event));
    this.grid.tiles = this.#view.tiles;
  }

  get space() {
    return this.#space;
  }

  get path() {
    return this.#path;
  }

  get entries() {
    return this.#entries;
  }

  get canEdit() {
    return this.#space?.role !== "viewer";
  }

  route(parts) {
    this.#scrolls.set(this.#address(), this.grid.element.scrollTop);
    const [id, ...names] = parts;
    const space = this.#shell.space(id);
    const path = `/${names.join("/")}`;
    const moved = this.#space?.id !== space?.id || this.#path !== path;
    this.#space = space;
    this.#path = path;
    this.#shell.place = { space, path };
    if (moved) {
      this.#entries = [];
      this.#whole = false;
      this.#failures = 0;
      this.grid.select([]);
    }
    this.#drawCrumbs();
    this.#drawTools();
    this.#drawHeads();
    this.load({ first: true });
  }

  /** The space may have another role now, or be this person's no more. */
  #takeSpaces() {
    const known = this.#shell.spaces.get().find((space) => space.id === this.#space?.id);
    if (known) {
      const isOther = ["name", "role", "sharedBy"].some((what) => known[what] !== this.#space[what]);
      this.#space = known;
      // What is drawn anew loses the focus.
      if (isOther) this.#drawTools();
    } else if (this.#space) {
      toast(t("files.spaceGone", { name: shown(this.#space.name) }));
      go("files");
    }
  }

  #address() {
    return `${this.#space?.id}${this.#path}`;
  }

  /** Asks the relay what is here. */
  async load({ first = false } = {}) {
    const turn = ++this.#turn;
    clearTimeout(this.#retry);
    if (!this.#space) return this.#show([]);
    this.element.setAttribute("aria-busy", "true");
    try {
      const ask = (cursor) => get(`/metadata/files${query({ space_id: this.#space.id, path: this.#path, limit: 1000, cursor })}`);
      const entries = await allPages(ask, (soFar, last) => {
        // A long directory shows its first page before the last one has come.
        if (first && !last && turn === this.#turn) this.#show(soFar);
      });
      if (turn !== this.#turn) return;
      this.#whole = true;
      this.#failures = 0;
      this.#show(entries);
      if (first) this.grid.element.scrollTop = this.#scrolls.get(this.#address()) ?? 0;
      this.#takeWanted();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#whole = false;
      if (error.status === 404 && this.#path !== "/") {
        toast(t("files.gone", { name: shown(segments(this.#path).at(-1)) }));
        this.openPath(parentPath(this.#path));
      } else if (first) {
        this.grid.show([]);
        replace(this.notice, failure(error, () => this.load({ first: true })));
      } else if (error.status !== 401) this.#loadAgain();
    } finally {
      if (turn === this.#turn) this.element.setAttribute("aria-busy", "false");
    }
  }

  /** What is shown is no longer what is here, and nobody may say so a second time: the page asks again by itself. */
  #loadAgain() {
    this.#failures += 1;
    this.#drawStatus();
    this.#retry = setTimeout(() => this.refresh(), Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** (this.#failures - 1)));
  }

  /** Selects what a search led to. */
  #takeWanted() {
    const { wanted } = this.#shell;
    const entry = wanted && this.#entries.find((one) => keyOf(one) === keyOf(wanted));
    this.#shell.wanted = null;
    if (!entry) return;
    this.grid.select([keyOf(entry)]);
    this.grid.activate(keyOf(entry));
    this.grid.element.focus();
  }

  #show(entries) {
    this.#entries = sorted(entries, this.#view.sort, this.#view.descending, collate().compare);
    this.grid.show(this.#entries);
    this.grid.element.classList.toggle("nothing", entries.length === 0);
    replace(this.notice, entries.length ? null : this.#empty());
    this.#drawStatus();
  }

  #empty() {
    const title = this.#path === "/" ? t("files.empty.title") : t("files.empty.folder");
    if (!this.canEdit) return emptyState("directory", title, "");
    return emptyState("directory", title, t("files.empty.text"), button(t("action.upload"), () => this.pick(false), { kind: "primary", icon: "upload" }));
  }

  /** Opens a directory, or shows a file. */
  open(entry) {
    if (entry.kind === "directory") this.openPath(joinPath(this.#path, entry.file_name));
    else this.actions.preview(entry);
  }

  openPath(path) {
    go("files", this.#space.id, ...segments(path));
  }

  /** Lets the person choose files, or a folder. */
  pick(folder) {
    const place = this.#place();
    const input = h("input", { type: "file", multiple: true, hidden: true, ...(folder ? { webkitdirectory: "" } : {}) });
    input.addEventListener("change", () => this.#upload(fromInput(input.files), place));
    input.click();
  }

  /** Where the person is now, and so where what they give now goes: reading it may take long, and they may be elsewhere when it is done. */
  #place() {
    return { space: this.#space, path: this.#path, existing: this.#whole ? this.#entries : null };
  }

  #upload(files, place) {
    return this.#shell.uploads.add(files, place);
  }

  // --- what is drawn ---

  #drawCrumbs() {
    const names = segments(this.#path);
    const spaces = this.#shell.spaces.get();
    const root = spaces.length > 1 ? shown(this.#space?.name ?? "") : t("nav.files");
    const parts = [[root, []], ...names.map((name, i) => [shown(name), names.slice(0, i + 1)])];
    this.#shell.title(parts.at(-1)[0]);
    replace(this.crumbs, h("ol", null, parts.map(([text, path], i) => {
      const last = i === parts.length - 1;
      return h("li", null, last ? h("h1", { tabindex: "-1" }, text) : h("a", { href: href("files", this.#space.id, ...path), title: text }, text));
    })));
  }

  #drawTools() {
    const selection = this.grid.selection;
    const tools = selection.length ? this.#selectionTools(selection) : this.#directoryTools();
    replace(this.tools, tools);
    this.#drawStatus();
  }

  #directoryTools() {
    const { tiles } = this.#view;
    return [
      this.canEdit && button(t("action.new"), (event) => this.#newMenu(event.currentTarget), { kind: "primary", icon: "add", "aria-haspopup": "menu", "aria-expanded": "false" }),
      h("span", { class: "tools-gap" }),
      this.#path === "/" && canShare({ space: this.#space }) && iconButton("share", t("share.folder"), () => this.actions.share()),
      iconButton(tiles ? "list" : "grid", t(tiles ? "view.list" : "view.tiles"), () => this.#setView({ tiles: !tiles })),
      iconButton("help", t("help.title"), () => this.actions.help()),
    ];
  }

  #selectionTools(selection) {
    return [
      iconButton("close", t("selection.clear"), () => { this.grid.select([]); this.grid.element.focus(); }),
      h("strong", { class: "selected-count" }, t("selection.count", { count: selection.length })),
      h("span", { class: "tools-gap" }),
      this.actions.forSelection(selection).filter((item) => item?.tool).map((item) => iconButton(item.icon, item.label, () => item.run(), { class: `icon-button ${item.optional ? "optional" : ""}`.trim() })),
      iconButton("more", t("action.more"), (event) => openMenu(this.actions.forSelection(selection), event.currentTarget, t("action.more")), { "aria-haspopup": "menu", "aria-expanded": "false" }),
    ];
  }

  #newMenu(anchor) {
    openMenu([
      { label: t("action.newFolder"), icon: "newFolder", run: () => this.actions.newFolder() },
      null,
      { label: t("action.uploadFiles"), icon: "upload", run: () => this.pick(false) },
      { label: t("action.uploadFolder"), icon: "directory", run: () => this.pick(true) },
    ], anchor, t("action.new"));
  }

  #drawHeads() {
    this.heads.hidden = false;
    replace(this.heads, COLUMNS.map((column) => {
      const on = this.#view.sort === column;
      const label = t(`column.${column}`);
      const text = on ? t(this.#view.descending ? "sort.descending" : "sort.ascending", { column: label }) : t("sort.by", { column: label });
      return h("button", { type: "button", class: `head-${column}`, "aria-pressed": String(on), "aria-label": text, onclick: () => this.#sortBy(column) },
        label, on && icon(this.#view.descending ? "down" : "up", "small"));
    }));
  }

  #drawStatus() {
    const selected = this.grid.selection;
    const of = selected.length ? selected : this.#entries;
    const bytes = of.reduce((sum, entry) => sum + entry.file_size, 0);
    const key = selected.length ? "selection.count" : "files.count";
    const parts = of.length ? [t(key, { count: of.length }), bytes && size(bytes)] : [];
    if (this.#failures) parts.push(t("files.stale"));
    this.status.textContent = parts.filter(Boolean).join(" · ");
  }

  #sortBy(column) {
    const descending = this.#view.sort === column ? !this.#view.descending : column !== "name";
    this.#setView({ sort: column, descending });
    this.heads.querySelector(`.head-${column}`).focus();
  }

  #setView(change) {
    Object.assign(this.#view, change);
    localStorage.setItem(VIEW, JSON.stringify(this.#view));
    this.grid.tiles = this.#view.tiles;
    this.#drawHeads();
    this.#drawTools();
    this.#show(this.#entries);
  }

  #name(entry) {
    const label = shown(entry.file_name);
    return h("span", { class: "row-name", title: label }, label, entry.is_conflict && h("span", { class: "tag warn" }, t("files.conflict")));
  }

  #row(entry) {
    const cell = (name, ...content) => h("div", { role: "gridcell", class: name }, content);
    const size_ = entry.kind === "directory" ? "" : size(entry.file_size);
    const time = entry.modified_at ?? entry.updated_at;
    return [
      cell("row-check", h("span", { class: "check" }, icon("check", "small"))),
      cell(size_ ? "row-main" : "row-main whole", thumbnail(entry, icon(kindOf(entry), `kind-${kindOf(entry)}`)), this.#name(entry)),
      cell("row-modified", h("time", { datetime: time, title: moment(time) }, when(time))),
      cell("row-size", size_),
      cell("row-more", h("span", { class: "more", title: t("action.more") }, icon("more"))),
    ];
  }

  #tile(entry) {
    const kind = kindOf(entry);
    const picture = thumbnail(entry, icon(kind, `large kind-${kind}`));
    return [
      h("div", { role: "gridcell", class: "row-check" }, h("span", { class: "check" }, icon("check", "small"))),
      h("div", { role: "gridcell", class: "tile" }, h("span", { class: "tile-picture" }, picture), this.#name(entry)),
      h("div", { role: "gridcell", class: "row-more" }, h("span", { class: "more", title: t("action.more") }, icon("more"))),
    ];
  }

  // --- what the person does ---

  #menu(point) {
    const selection = this.grid.selection;
    const items = selection.length ? this.actions.forSelection(selection) : this.actions.forDirectory();
    if (items.length) openMenu(items, point, selection.length === 1 ? shown(selection[0].file_name) : t("action.more"));
  }

  #command(event) {
    const selection = this.grid.selection.length ? this.grid.selection : this.grid.activeEntry ? [this.grid.activeEntry] : [];
    const one = selection.length === 1 ? selection[0] : null;
    const commands = {
      F2: () => one && this.actions.canChange(one) && this.actions.rename(one),
      Delete: () => selection.length && selection.every((entry) => this.actions.canChange(entry)) && this.actions.remove(selection),
      Backspace: () => this.#path !== "/" && this.openPath(parentPath(this.#path)),
      "?": () => this.actions.help(),
    };
    if (event.altKey && event.key === "ArrowUp") commands.Backspace();
    else if (event.altKey || event.ctrlKey || event.metaKey || !commands[event.key]) return false;
    else commands[event.key]();
    return true;
  }

  // --- files that are given: dropped anywhere on the window, or pasted ---

  /** Files are held over the window, or no longer. */
  hover(on) {
    const { refusal } = this;
    this.element.classList.toggle("dropping", on);
    this.element.classList.toggle("refusing", on && Boolean(refusal));
    if (on) this.hint.textContent = refusal ?? t("upload.drop");
  }

  /** Why nothing can be put here; nothing if it can. */
  get refusal() {
    return this.#space && this.canEdit ? null : t("files.readOnly");
  }

  /** What was dropped here, once it has been read. */
  async take(files) {
    const place = this.#place();
    this.#upload(await files, place);
  }

  #paste(event) {
    if (event.target.closest?.("input,textarea,dialog") || !event.clipboardData?.files.length) return;
    event.preventDefault();
    if (this.refusal) toast(this.refusal);
    else this.#upload(fromInput(event.clipboardData.files), this.#place());
  }
}
