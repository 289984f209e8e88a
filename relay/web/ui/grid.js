// A list of any length of which only what is seen is in the page: rows of one height, or tiles. WAI-ARIA grid pattern with an active descendant:
// the element has the focus, `active` says which entry the keys mean.

import { h, uid } from "../lib/dom.js";

/** So much above and below what is seen is in the page too, in pixels. */
const OVERSCAN = 352;
const TILE_WIDTH = 140;
const TILE_HEIGHT = 148;
const ROW_HEIGHT = 44;

/**
 * @param on `row(entry, index)` gives the cells of an entry; `key(entry)` what stays the same; `open`, `menu(point)`, `changed(selection)`, `command(event)`
 */
export class Grid {
  #on;
  #entries = [];
  #rows = new Map();
  #drawn = new WeakMap();
  #selected = new Set();
  #active = 0;
  #anchor = 0;
  #tiles = false;
  #prefix = uid("row");
  #typed = "";
  #typedAt = 0;

  constructor(label, on) {
    this.#on = on;
    this.spacer = h("div", { class: "grid-spacer", role: "rowgroup" });
    this.element = h("div", { class: "grid", role: "grid", tabindex: "0", "aria-label": label, "aria-multiselectable": "true" }, this.spacer);
    this.element.addEventListener("scroll", () => this.#draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("click", (event) => this.#onClick(event));
    this.element.addEventListener("dblclick", (event) => this.#onDouble(event));
    this.element.addEventListener("contextmenu", (event) => this.#onMenu(event));
    this.element.addEventListener("focus", () => this.#draw());
    this.element.addEventListener("blur", () => this.#draw());
    this.resize = new ResizeObserver(() => this.#draw());
    this.resize.observe(this.element);
  }

  /** The entries, in order; the selection stays on those that still are there. */
  show(entries) {
    const activeKey = this.activeEntry && this.#on.key(this.activeEntry);
    this.#entries = entries;
    const keys = new Map(entries.map((entry, index) => [this.#on.key(entry), index]));
    const before = this.#selected.size;
    for (const key of this.#selected) if (!keys.has(key)) this.#selected.delete(key);
    this.#active = keys.get(activeKey) ?? Math.min(this.#active, Math.max(0, entries.length - 1));
    this.#keep(keys);
    this.element.setAttribute("aria-rowcount", entries.length);
    this.#draw();
    if (before !== this.#selected.size) this.#tell();
  }

  /** Rows or tiles. */
  set tiles(tiles) {
    this.#tiles = tiles;
    this.element.classList.toggle("tiles", tiles);
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.#draw();
  }

  get tiles() {
    return this.#tiles;
  }

  /** The entry that the keys mean. */
  get activeEntry() {
    return this.#entries[this.#active];
  }

  /** What is selected, in the order of the list. */
  get selection() {
    return this.#entries.filter((entry) => this.#selected.has(this.#on.key(entry)));
  }

  /** Selects these alone, by their keys. */
  select(keys) {
    this.#selected = new Set(keys);
    this.#paint();
    this.#tell();
  }

  /** Makes an entry the active one and shows it. */
  activate(key) {
    const index = this.#entries.findIndex((entry) => this.#on.key(entry) === key);
    if (index >= 0) this.#goTo(index, false);
  }

  /** Where the active entry is on the screen. */
  activePoint() {
    const box = (this.#rows.get(this.#active) ?? this.element).getBoundingClientRect();
    return { x: box.left + 48, y: Math.min(box.bottom - 6, innerHeight - 20) };
  }

  end() {
    this.resize.disconnect();
  }

  get #columns() {
    return this.#tiles ? Math.max(1, Math.floor((this.spacer.clientWidth || 320) / TILE_WIDTH)) : 1;
  }

  #draw() {
    const columns = this.#columns;
    const height = this.#tiles ? TILE_HEIGHT : ROW_HEIGHT;
    const lines = Math.ceil(this.#entries.length / columns);
    this.spacer.style.height = `${lines * height}px`;
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor((scrollTop - OVERSCAN) / height)) * columns;
    const last = Math.min(this.#entries.length, Math.ceil((scrollTop + clientHeight + OVERSCAN) / height) * columns);
    const wanted = (index) => (index >= first && index < last) || index === this.#active;
    for (const [index, row] of this.#rows) {
      if (!wanted(index)) {
        row.remove();
        this.#rows.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) this.#row(index);
    if (this.#entries.length) this.#row(this.#active);
    this.#order();
    const width = this.#tiles ? 100 / columns : 100;
    for (const [index, row] of this.#rows) {
      const drawn = this.#drawn.get(row);
      const place = `${index} ${columns}`;
      if (drawn.place === place) continue;
      drawn.place = place;
      row.style.top = `${Math.floor(index / columns) * height}px`;
      row.style.left = `${(index % columns) * width}%`;
      row.style.width = `${width}%`;
    }
    this.#paint();
  }

  #row(index) {
    if (this.#rows.has(index)) return;
    const entry = this.#entries[index];
    const row = h("div", { class: "grid-row", role: "row" }, this.#on.row(entry, this.#tiles));
    this.#drawn.set(row, { key: this.#on.key(entry), entry, place: "" });
    this.#number(row, index);
    this.#rows.set(index, row);
  }

  #number(row, index) {
    row.id = `${this.#prefix}-${index}`;
    row.setAttribute("aria-rowindex", index + 1);
    row.dataset.index = index;
  }

  /** Rows of entries that are as they were stay the same elements: a click in the middle of a refresh hits what it was meant for. */
  #keep(keys) {
    const before = [...this.#rows.values()];
    this.#rows.clear();
    for (const row of before) {
      const { key, entry } = this.#drawn.get(row);
      const index = keys.get(key);
      if (index !== undefined && JSON.stringify(entry) === JSON.stringify(this.#entries[index])) {
        this.#number(row, index);
        this.#rows.set(index, row);
      } else row.remove();
    }
  }

  /** Puts the rows in the order of the list, for who reads the page instead of seeing it; a row that stands right is not touched. */
  #order() {
    let at = this.spacer.firstElementChild;
    for (const index of [...this.#rows.keys()].sort((a, b) => a - b)) {
      const row = this.#rows.get(index);
      if (row === at) at = at.nextElementSibling;
      else this.spacer.insertBefore(row, at);
    }
  }

  #paint() {
    for (const [index, row] of this.#rows) {
      const on = String(this.#selected.has(this.#on.key(this.#entries[index])));
      if (row.getAttribute("aria-selected") !== on) row.setAttribute("aria-selected", on);
      row.classList.toggle("active", index === this.#active);
    }
    // Not by `:has()`, which is asked again for each row that comes and goes.
    this.element.classList.toggle("selecting", this.#selected.size > 0);
    if (this.#entries.length) this.element.setAttribute("aria-activedescendant", `${this.#prefix}-${this.#active}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #tell() {
    this.#on.changed(this.selection);
  }

  #goTo(index, extend) {
    this.#active = Math.max(0, Math.min(index, this.#entries.length - 1));
    const height = this.#tiles ? TILE_HEIGHT : ROW_HEIGHT;
    const top = Math.floor(this.#active / this.#columns) * height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + height > this.element.scrollTop + this.element.clientHeight) this.element.scrollTop = top + height - this.element.clientHeight;
    if (extend) this.#selectRange();
    else this.#anchor = this.#active;
    this.#draw();
  }

  #selectRange() {
    const [from, to] = [Math.min(this.#anchor, this.#active), Math.max(this.#anchor, this.#active)];
    this.#selected = new Set(this.#entries.slice(from, to + 1).map(this.#on.key));
    this.#tell();
  }

  #toggle(index) {
    const key = this.#on.key(this.#entries[index]);
    if (!this.#selected.delete(key)) this.#selected.add(key);
    this.#paint();
    this.#tell();
  }

  #indexAt(event) {
    const row = event.target.closest(".grid-row");
    return row && this.spacer.contains(row) ? Number(row.dataset.index) : -1;
  }

  #onClick(event) {
    const index = this.#indexAt(event);
    if (index < 0) {
      if (event.target === this.element || event.target === this.spacer) this.select([]);
      return;
    }
    this.#active = index;
    if (event.target.closest(".row-more")) {
      this.#onMenu(event);
      return;
    }
    if (event.target.closest(".row-name") && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
      this.#paint();
      this.#on.open(this.#entries[index]);
      return;
    }
    if (event.shiftKey) {
      this.#selectRange();
      this.#paint();
      return;
    }
    this.#anchor = index;
    if (event.target.closest(".row-check") || event.ctrlKey || event.metaKey) this.#toggle(index);
    else this.select([this.#on.key(this.#entries[index])]);
  }

  #onDouble(event) {
    const index = this.#indexAt(event);
    if (index >= 0 && !event.target.closest(".row-check,.row-more,.row-name")) this.#on.open(this.#entries[index]);
  }

  #onMenu(event) {
    const index = this.#indexAt(event);
    event.preventDefault();
    if (index >= 0) {
      this.#active = index;
      this.#anchor = index;
      const key = this.#on.key(this.#entries[index]);
      if (!this.#selected.has(key)) this.select([key]);
      else this.#paint();
    } else this.select([]);
    this.element.focus({ preventScroll: true });
    const isKey = event.type === "contextmenu" && event.clientX === 0 && event.clientY === 0;
    this.#on.menu(isKey ? this.activePoint() : { x: event.clientX, y: event.clientY });
  }

  #onKey(event) {
    if (event.target !== this.element) return;
    const columns = this.#columns;
    const page = Math.max(1, Math.floor(this.element.clientHeight / (this.#tiles ? TILE_HEIGHT : ROW_HEIGHT)) - 1) * columns;
    const steps = {
      ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
      ...(this.#tiles ? { ArrowRight: 1, ArrowLeft: -1 } : {}),
    };
    const step = steps[event.key];
    if (step !== undefined && !event.altKey) {
      this.#goTo(step === Infinity ? this.#entries.length - 1 : step === -Infinity ? 0 : this.#active + step, event.shiftKey);
    } else if (event.key === " " && this.#entries.length) this.#toggle(this.#active);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) this.select(this.#entries.map(this.#on.key));
    else if (event.key === "Escape" && this.#selected.size) this.select([]);
    else if (event.key === "Enter" && !event.ctrlKey && this.activeEntry) this.#on.open(this.activeEntry);
    else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) this.#menuByKey();
    else if (!this.#on.command(event)) {
      if (!this.#find(event)) return;
    }
    event.preventDefault();
  }

  #menuByKey() {
    const entry = this.activeEntry;
    if (entry && !this.#selected.has(this.#on.key(entry))) this.select([this.#on.key(entry)]);
    this.#on.menu(this.activePoint());
  }

  /** Goes to the next entry whose name begins with what was typed. */
  #find(event) {
    if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.altKey) return false;
    const now = event.timeStamp;
    this.#typed = (now - this.#typedAt < 800 ? this.#typed : "") + event.key.toLowerCase();
    this.#typedAt = now;
    const from = this.#typed.length > 1 ? this.#active : this.#active + 1;
    const order = [...this.#entries.keys()].map((i) => (i + from) % this.#entries.length);
    const hit = order.find((i) => this.#on.name(this.#entries[i]).toLowerCase().startsWith(this.#typed));
    if (hit !== undefined) this.#goTo(hit, false);
    return true;
  }
}
