// What happened, by whom and on which device: over all folders or in one. What one device did in one go is one line, which opens.

import { get, query } from "../lib/api.js";
import { dayOf, grouped } from "../lib/acts.js";
import { h, replace } from "../lib/dom.js";
import { currentLanguage, moment, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { parentPath, segments, shown } from "../lib/names.js";
import { go, href } from "../lib/router.js";
import { busy, button, emptyState, failure, iconButton } from "../ui/controls.js";
import { icon } from "../ui/icons.js";
import { toastError } from "../ui/toast.js";

const ICONS = { created: "add", restored: "restore", deleted: "trash", moved: "move", renamed: "rename", edited: "versions", changed: "file" };
/** Names that a line tells; the others open. */
const TOLD = 3;
const PAGE = 200;

export function create(shell, life) {
  return new ActivityPage(shell, life);
}

class ActivityPage {
  #shell;
  #space = "";
  #device = "";
  #acts = [];
  #turn = 0;

  constructor(shell, life) {
    this.#shell = shell;
    this.filters = h("div", { class: "filters", role: "group", "aria-label": t("search.filters") });
    this.content = h("div", { class: "cards" });
    this.element = h("div", { class: "page" }, h("header", { class: "page-head" }, h("h1", { tabindex: "-1" }, t("nav.activity"))), this.filters, this.content);
    life.add(shell.onChange(coalesced(() => this.#acts.length <= PAGE && this.#load({ quietly: true }), 800)));
    life.add(() => (this.#turn += 1));
  }

  route([space = "", device = ""]) {
    this.#shell.title(t("nav.activity"));
    this.#space = space === "all" ? "" : space;
    this.#device = device;
    this.#drawFilters();
    this.#load();
  }

  #ask(cursor) {
    return get(`/api/v1/activity${query({ space_id: this.#space || undefined, device_id: this.#device || undefined, limit: PAGE, cursor })}`);
  }

  async #load({ quietly = false } = {}) {
    const turn = ++this.#turn;
    try {
      const page = await this.#ask();
      if (turn !== this.#turn) return;
      this.#acts = page.acts;
      this.#draw(page);
    } catch (error) {
      if (turn === this.#turn && !quietly) replace(this.content, failure(error, () => this.#load()));
    }
  }

  #draw(page) {
    if (!this.#acts.length) return replace(this.content, emptyState("activity", t("activity.none"), t("activity.noneText")));
    const open = new Set([...this.content.querySelectorAll("details[open]")].map((element) => element.dataset.key));
    const days = [];
    for (const group of grouped(this.#acts)) {
      if (days.at(-1)?.day !== dayOf(group)) days.push({ day: dayOf(group), to: group.to, groups: [] });
      days.at(-1).groups.push(group);
    }
    const day = (one) => h("section", null, h("h2", { class: "day" }, this.#day(one.to)), h("ul", { class: "rows" }, one.groups.map((group) => this.#row(group, open))));
    replace(this.content, days.map(day), page.has_more && button(t("action.showMore"), (event) => busy(event.currentTarget, async () => {
      const turn = this.#turn;
      const next = await this.#ask(page.cursor);
      if (turn !== this.#turn) return;
      this.#acts.push(...next.acts);
      this.#draw(next);
    }, toastError)));
  }

  #day(ms) {
    const date = new Date(ms);
    const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(ms).setHours(0, 0, 0, 0)) / 86_400_000);
    if (days < 2) return new Intl.RelativeTimeFormat(currentLanguage(), { numeric: "auto" }).format(-days, "day");
    return new Intl.DateTimeFormat(currentLanguage(), { weekday: "long", day: "numeric", month: "long", year: "numeric" }).format(date);
  }

  #who({ by }) {
    if (!by) return t("activity.somebody");
    return by.is_me ? t("activity.me") : shown(by.name || by.email || t("activity.somebody"));
  }

  #row(group, open) {
    const [first] = group.acts;
    const { by } = first;
    const act = first.acts.at(-1);
    const how = by && t(by.device ? "activity.device" : "activity.web", { name: shown(by.device ?? "") });
    const count = group.acts.length;
    const time = new Date(group.to).toISOString();
    const clock = new Intl.DateTimeFormat(currentLanguage(), { hour: "numeric", minute: "2-digit" }).format(group.to);
    const line = count === 1 ? t(`activity.${first.acts.join(".")}`, { name: shown(first.name), old: shown(first.old_name ?? "") }) : t(`activity.many.${act}`, { count });
    const space = this.#shell.space(first.space_id);
    return h("li", { class: "act" }, icon(ICONS[act] ?? "file"),
      h("div", { class: "rows-main" },
        h("span", null, h("strong", null, this.#who(first)), " ", this.#text(first, line, count)),
        h("span", { class: "soft" }, this.#place(first), how && ` · ${how}`),
        count > 1 && this.#names(group, open)),
      h("time", { class: "soft", datetime: time, title: moment(time) }, clock),
      space?.role !== "viewer" && iconButton("restore", t("activity.beforeThis", { what: line, when: moment(time) }), () => go("rewind", space.id, String(group.from - 1))));
  }

  /** What was done; a link where there is something to be seen. */
  #text(act, line, count) {
    if (count > 1 || !act.file_path) return line;
    // A language may begin with a sign that stands between the person and what was done.
    const [, sign, what] = /^(· )?(.*)$/s.exec(line);
    return [sign, h("a", { href: this.#href(act), onclick: () => this.#want(act) }, what)];
  }

  #names(group, open) {
    const key = `${group.whose}|${group.to}`;
    const name = (act) => h("li", null, act.file_path ? h("a", { href: this.#href(act), onclick: () => this.#want(act) }, shown(act.name)) : shown(act.name));
    const few = group.acts.slice(0, TOLD).map((act) => shown(act.name)).join(", ");
    return h("details", { dataset: { key }, open: open.has(key) }, h("summary", null, group.acts.length > TOLD ? t("activity.andMore", { names: few, count: group.acts.length - TOLD }) : few), h("ul", { class: "names" }, group.acts.map(name)));
  }

  #place(act) {
    const names = act.directory === null ? [t("activity.goneFolder")] : segments(act.directory).map(shown);
    return [shown(this.#shell.space(act.space_id)?.name ?? ""), ...names].join(" › ");
  }

  #href(act) {
    return href("files", this.#shell.space(act.space_id).id, ...segments(act.kind === "directory" ? act.file_path : parentPath(act.file_path)));
  }

  #want(act) {
    if (act.kind !== "directory") this.#shell.wanted = act;
  }

  async #drawFilters() {
    const spaces = this.#shell.spaces.get().map((space) => [space.id, shown(space.name)]);
    const { devices } = await get("/api/v1/devices").catch(() => ({ devices: [] }));
    const select = (name, any, options, value) => {
      const element = h("select", { "aria-label": t(`activity.by.${name}`), onchange: () => this.#choose({ [name]: element.value }) },
        [["", any], ...options].map(([one, text]) => h("option", { value: one }, text)));
      element.value = value;
      element.classList.toggle("set", value !== "");
      return element;
    };
    replace(this.filters,
      spaces.length > 1 && select("space", t("activity.allFolders"), spaces, this.#space),
      devices.length > 0 && select("device", t("activity.everybody"), devices.map((device) => [device.device_id, shown(device.name)]), this.#device));
  }

  #choose(change) {
    const { space, device } = { space: this.#space, device: this.#device, ...change };
    location.replace(href(...["activity", space || "all", device].filter(Boolean)));
  }
}
