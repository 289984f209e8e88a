// The trash: what was deleted, the way back, and for owners the end.

import { allPages, del, get, query, refusal } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, moment, size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { go } from "../lib/router.js";
import { busy, button, emptyState, failure, field, page } from "../ui/controls.js";
import { confirm, dialog } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";
import { batch } from "../files/actions.js";

/** Entries that are drawn; older ones on request. */
const PAGE = 200;
const DAY_MS = 86_400_000;
const AGES = [0, 7, 30, 365];

export function create(shell, life) {
  shell.title(t("nav.trash"));
  const content = h("div", { class: "cards" });
  const rewind = button(t("rewind.title"), () => go("rewind"), { icon: "restore" });
  const empty = button(t("trash.purgeAll"), () => purgeMany(), { kind: "danger-text", hidden: true });
  let limit = PAGE;
  let parts = [];

  async function load() {
    try {
      const found = [];
      for (const space of shell.spaces.get()) {
        const items = await allPages((cursor) => get(`/api/v1/trash${query({ space_id: space.id, limit: 1000, cursor })}`));
        found.push(...items.map((item) => ({ item, space })));
      }
      parts = found.sort((a, b) => (a.item.deleted_at < b.item.deleted_at ? 1 : -1));
      draw();
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  function draw() {
    empty.hidden = !parts.some(({ space }) => space.role === "owner");
    if (!parts.length) return replace(content, emptyState("trash", t("trash.empty"), t("trash.emptyText")));
    const several = shell.spaces.get().length > 1;
    replace(content,
      h("ul", { class: "rows" }, parts.slice(0, limit).map(({ item, space }) => h("li", null,
        icon(item.file_type === "directory" ? "directory" : "file"),
        h("div", { class: "rows-main" }, h("strong", null, shown(item.file_name)),
          h("span", { class: "soft", title: moment(item.deleted_at) }, [t("trash.deleted", { ago: ago(item.deleted_at) }), item.file_size ? size(item.file_size) : "", several ? shown(space.name) : ""].filter(Boolean).join(" · "))),
        h("div", { class: "rows-actions" },
          space.role !== "viewer" && button(t("action.restore"), (event) => restore(event.currentTarget, item, space), { "aria-label": t("trash.restore", { name: shown(item.file_name) }) }),
          space.role === "owner" && button(t("trash.purge"), (event) => purgeOne(event.currentTarget, item, space), { kind: "quiet danger-text", "aria-label": t("trash.purgeOne", { name: shown(item.file_name) }) }))))),
      parts.length > limit && button(t("action.showMore"), () => { limit += PAGE; draw(); }));
  }

  const restore = (element, item, space) => busy(element, async () => {
    const [result] = await batch(space, [{ action: "restore", file_id: item.file_id }]);
    if (!result.ok) throw Object.assign(new Error(result.detail), { text: refusal(result) });
    toast(t("trash.restored", { path: shown(result.file.file_path) }));
    await load();
  }, toastError);

  async function purgeOne(element, item, space) {
    if (!(await confirm(t("trash.purgeOne", { name: shown(item.file_name) }), t("trash.purgeText"), t("trash.purge")))) return;
    await busy(element, () => purge([{ space_id: space.id, file_id: item.file_id }]), toastError);
  }

  /** Asks how old; the number of entries is said before anything is done. */
  async function purgeMany() {
    const own = [...new Map(parts.filter(({ space }) => space.role === "owner").map(({ space }) => [space.id, space])).values()];
    const chosen = await dialog(t("trash.purgeAll"), (close) => {
      const where = field(t("trash.where"), { name: "space", options: [...(own.length > 1 ? [["", t("trash.everywhere")]] : []), ...own.map((space) => [space.id, shown(space.name)])] });
      const age = field(t("trash.age"), { name: "age", options: AGES.map((days) => [days, t(days ? "trash.older" : "trash.all", { count: days })]) });
      const spaces = () => own.filter((space) => !where.input.value || space.id === where.input.value);
      const before = () => (Number(age.input.value) ? new Date(Date.now() - Number(age.input.value) * DAY_MS).toISOString() : null);
      const note = h("p", { class: "warning", role: "status" });
      const yes = button(t("trash.purge"), () => close(spaces().map((space) => ({ space_id: space.id, ...(before() ? { before: before() } : { all: true }) }))), { kind: "danger" });
      const count = () => {
        const limit = before();
        const meant = parts.filter(({ item, space }) => spaces().includes(space) && (!limit || item.deleted_at < limit)).length;
        note.textContent = t("trash.purgeWarning", { count: meant });
        yes.disabled = meant === 0;
      };
      for (const one of [where, age]) one.input.addEventListener("change", count);
      count();
      return [where.element, age.element, note, h("div", { class: "dialog-actions" }, button(t("action.cancel"), () => close(), { autofocus: true }), yes)];
    });
    if (chosen) await busy(empty, () => purge(chosen), toastError);
  }

  async function purge(wishes) {
    let [count, bytes] = [0, 0];
    for (const wish of wishes) {
      const done = await del(`/api/v1/trash${query(wish)}`);
      count += done.purged;
      bytes += done.freed_bytes;
    }
    toast(t("trash.purged", { count, size: size(bytes) }));
    shell.refreshUsage();
    await load();
  }

  life.add(shell.onChange(coalesced(load, 300)));
  load();
  return { element: page(t("nav.trash"), [rewind, empty], content) };
}
