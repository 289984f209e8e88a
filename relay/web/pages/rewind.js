// Going back: a folder becomes what it was at a time, all of it or what one device changed. First it is shown what that would do; afterwards it can be taken back.

import { get, post } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { busy, button, emptyState, field, failure, page } from "../ui/controls.js";
import { confirm } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";

const COUNTS = ["restored", "reverted", "moved", "removed", "not_kept", "kept_for_others", "changed_meanwhile"];
const ACTS = { restored: "restore", reverted: "versions", moved: "move", removed: "trash", not_kept: "conflict" };
const ENTRIES = 100;
const HOUR_MS = 3_600_000;

/** A moment as the input takes it: local, to the second. */
export function localTime(date) {
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19);
}

/** An id that nobody else has, for one rewind: asked again with it, it goes on. */
const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function create(shell) {
  return new RewindPage(shell);
}

class RewindPage {
  #shell;
  #turn = 0;

  constructor(shell) {
    this.#shell = shell;
    const own = shell.spaces.get().filter((space) => space.role !== "viewer");
    this.space = field(t("rewind.folder"), { name: "space", options: own.map((space) => [space.id, shown(space.name)]) });
    this.time = field(t("rewind.time"), { name: "to", type: "datetime-local", step: 1, required: true, value: localTime(new Date(Date.now() - HOUR_MS)), max: localTime(new Date()) });
    this.device = field(t("rewind.by"), { name: "device", options: [["", t("rewind.everybody")]] });
    this.result = h("div", { class: "cards" });
    const look = button(t("rewind.look"), null, { type: "submit", kind: "primary" });
    const form = h("form", { class: "card", novalidate: true, onsubmit: (event) => { event.preventDefault(); busy(look, () => this.#look(), toastError); } },
      h("div", { class: "field-row" }, this.space.element, this.time.element, this.device.element),
      h("div", { class: "card-actions" }, [["hour", 1], ["day", 24], ["week", 168]].map(([name, hours]) => button(t(`rewind.${name}`), () => this.#ago(hours), { kind: "quiet" }))),
      h("div", { class: "card-actions" }, look));
    form.addEventListener("input", () => this.#forget());
    this.space.input.addEventListener("change", () => this.#loadDevices());
    this.element = page(t("rewind.title"), [], h("p", { class: "soft intro" }, t("rewind.intro")), own.length ? h("div", { class: "cards rewind" }, form, this.result) : emptyState("restore", t("rewind.none"), ""));
  }

  route([space, time]) {
    this.#shell.title(t("rewind.title"));
    if (space) this.space.input.value = this.#shell.space(space).id;
    if (time) this.time.input.value = localTime(new Date(Number(time)));
    this.#forget();
    this.#loadDevices();
  }

  /** What was shown is of another question. */
  #forget() {
    this.#turn += 1;
    replace(this.result);
  }

  #ago(hours) {
    this.time.input.value = localTime(new Date(Date.now() - hours * HOUR_MS));
    this.#forget();
  }

  async #loadDevices() {
    const { devices } = await get("/api/v1/devices").catch(() => ({ devices: [] }));
    const names = [...new Set(devices.map((device) => device.name))];
    const kept = this.device.input.value;
    replace(this.device.input, [["", t("rewind.everybody")], ...names.map((name) => [name, shown(name)])].map(([value, text]) => h("option", { value }, text)));
    this.device.input.value = names.includes(kept) ? kept : "";
  }

  get #wish() {
    const to = new Date(this.time.input.value);
    if (Number.isNaN(to.getTime())) return null;
    return { to: to.toISOString(), ...(this.device.input.value ? { by_device: this.device.input.value } : {}) };
  }

  async #look() {
    const wish = this.#wish;
    this.time.problem(wish ? null : t("rewind.noTime"));
    if (!wish) return this.time.input.focus();
    const turn = ++this.#turn;
    const space = this.#shell.space(this.space.input.value);
    try {
      const plan = await this.#ask(space, { ...wish, dry_run: true, limit: ENTRIES });
      if (turn === this.#turn) this.#showPlan(space, wish, plan);
    } catch (error) {
      if (turn === this.#turn) replace(this.result, failure(error, () => this.#look()));
    }
  }

  #ask(space, wish) {
    return post(`/api/v1/folders/${space.id}/rewind`, wish);
  }

  #showPlan(space, wish, plan) {
    const changes = ["restored", "reverted", "moved", "removed"].reduce((sum, name) => sum + plan.counts[name], 0);
    const counts = this.#counts(plan.counts);
    if (!changes) return replace(this.result, h("div", { class: "card", role: "status" }, h("h2", null, t("rewind.nothing")), counts));
    const list = h("ul", { class: "rows" }, plan.entries.map((entry) => this.#entry(entry)));
    const more = h("div");
    const drawMore = (cursor) => replace(more, cursor && button(t("action.showMore"), (event) => busy(event.currentTarget, async () => {
      const next = await this.#ask(space, { ...wish, dry_run: true, limit: ENTRIES, cursor });
      list.append(...next.entries.map((entry) => this.#entry(entry)));
      drawMore(next.cursor);
    }, toastError)));
    drawMore(plan.cursor);
    const go = button(t("rewind.do"), () => this.#confirm(space, wish, changes, go), { kind: "danger" });
    const title = h("h2", { tabindex: "-1" }, t("rewind.would", { name: shown(space.name), when: moment(wish.to) }));
    replace(this.result, h("section", { class: "card" }, title, counts, list, more, h("div", { class: "card-actions" }, go)));
    title.focus();
  }

  #counts(counts) {
    return h("ul", { class: "counts" }, COUNTS.filter((name) => counts[name]).map((name) => h("li", null, t(`rewind.count.${name}`, { count: counts[name] }))));
  }

  #entry(entry) {
    return h("li", null, icon(ACTS[entry.acts[0]] ?? "file"), h("div", { class: "rows-main" }, h("strong", null, shown(entry.path)),
      h("span", { class: "soft" }, entry.acts.map((act) => t(`rewind.act.${act}`)).join(" · "))));
  }

  async #confirm(space, wish, changes, element) {
    if (!(await confirm(t("rewind.do"), t("rewind.sure", { count: changes, name: shown(space.name), when: moment(wish.to) }), t("rewind.do")))) return;
    await busy(element, () => this.#rewind(space, wish), toastError);
  }

  /** Goes on until it is finished: a large folder takes several requests of one id. */
  async #rewind(space, wish) {
    const turn = ++this.#turn;
    const id = newId();
    const state = h("p", { role: "status" }, t("rewind.running"));
    replace(this.result, h("section", { class: "card" }, h("h2", null, t("rewind.title")), state));
    let done;
    do {
      done = await this.#ask(space, { ...wish, id });
      const count = ["restored", "reverted", "moved", "removed"].reduce((sum, name) => sum + done.counts[name], 0);
      state.textContent = t("rewind.soFar", { count });
    } while (!done.finished);
    toast(t("rewind.done", { name: shown(space.name) }));
    if (turn === this.#turn) this.#showDone(space, wish, done);
  }

  #showDone(space, wish, done) {
    const undo = button(t("rewind.undo"), () => busy(undo, () => this.#rewind(space, { to: done.undo_to }), toastError), { icon: "restore" });
    const title = h("h2", { tabindex: "-1" }, t("rewind.is", { name: shown(space.name), when: moment(wish.to) }));
    replace(this.result, h("section", { class: "card" }, title, this.#counts(done.counts),
      h("p", { class: "soft" }, t("rewind.undoText")), h("div", { class: "card-actions" }, undo)));
    title.focus();
  }
}
