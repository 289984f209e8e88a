// The trash: what was deleted, and the way back.

import { allPages, get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, moment, size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { busy, button, emptyState, failure, page } from "../ui/controls.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";
import { batch } from "../files/actions.js";

/** Entries that are drawn; older ones on request. */
const PAGE = 200;

export function create(shell, life) {
  shell.title(t("nav.trash"));
  const content = h("div", { class: "cards" });
  let limit = PAGE;

  async function load() {
    try {
      const parts = [];
      for (const space of shell.spaces.get()) {
        const items = await allPages((cursor) => get(`/api/v1/trash${query({ space_id: space.id, limit: 1000, cursor })}`));
        parts.push(...items.map((item) => ({ item, space })));
      }
      parts.sort((a, b) => (a.item.deleted_at < b.item.deleted_at ? 1 : -1));
      draw(parts);
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  function draw(parts) {
    if (!parts.length) return replace(content, emptyState("trash", t("trash.empty"), t("trash.emptyText")));
    const several = shell.spaces.get().length > 1;
    replace(content,
      h("ul", { class: "rows" }, parts.slice(0, limit).map(({ item, space }) => h("li", null,
        icon(item.file_type === "directory" ? "directory" : "file"),
        h("div", { class: "rows-main" }, h("strong", null, shown(item.file_name)),
          h("span", { class: "soft", title: moment(item.deleted_at) }, [t("trash.deleted", { ago: ago(item.deleted_at) }), item.file_size ? size(item.file_size) : "", several ? shown(space.name) : ""].filter(Boolean).join(" · "))),
        space.role !== "viewer" && button(t("action.restore"), (event) => restore(event.currentTarget, item, space), { "aria-label": t("trash.restore", { name: shown(item.file_name) }) })))),
      parts.length > limit && button(t("action.showMore"), () => { limit += PAGE; draw(parts); }));
  }

  const restore = (element, item, space) => busy(element, async () => {
    const [result] = await batch(space, [{ action: "restore", file_id: item.file_id }]);
    if (!result.ok) throw Object.assign(new Error(result.detail), { text: result.detail });
    toast(t("trash.restored", { path: shown(result.file.file_path) }));
    await load();
  }, toastError);

  life.add(shell.onChange(coalesced(load, 300)));
  load();
  return { element: page(t("nav.trash"), [], content) };
}
