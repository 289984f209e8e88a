// Chooses a directory: the way to move without dragging.

import { allPages, get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { collate, t } from "../lib/i18n.js";
import { joinPath, parentPath, segments, shown } from "../lib/names.js";
import { button } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";

/**
 * @param moving paths that cannot be chosen, nor what is below them
 * @returns a promise of the path; undefined when nothing was chosen
 */
export function pickFolder(space, start, moving, title) {
  return dialog(title, (close) => {
    let path = start;
    const where = h("p", { class: "picker-path", role: "status" });
    const list = h("ul", { class: "picker" });
    const choose = button(t("move.here"), () => close(path), { kind: "primary" });
    async function open(to, focus = true) {
      path = to;
      choose.disabled = path === start;
      where.textContent = path === "/" ? shown(space.name) : [shown(space.name), ...segments(path).map(shown)].join(" › ");
      let entries;
      try {
        entries = await allPages((cursor) => get(`/metadata/files${query({ space_id: space.id, path: to, limit: 1000, cursor })}`));
      } catch (error) {
        if (path === to) replace(list, h("li", { class: "picker-note" }, error.text ?? error.message));
        return;
      }
      if (path !== to) return;
      const compare = collate().compare;
      const folders = entries.filter((entry) => entry.kind === "directory" && !moving.has(joinPath(to, entry.file_name))).sort((a, b) => compare(a.file_name, b.file_name));
      replace(list,
        path !== "/" && h("li", null, row("up", t("move.up"), () => open(parentPath(path)))),
        folders.map((entry) => h("li", null, row("directory", shown(entry.file_name), () => open(joinPath(path, entry.file_name))))),
        !folders.length && h("li", { class: "picker-note" }, t("move.noFolders")));
      if (focus) (list.querySelector("button") ?? choose).focus();
    }
    open(start);
    return [where, list, h("div", { class: "dialog-actions" }, button(t("action.cancel"), () => close()), choose)];
  });
}

const row = (name, text, onclick) => h("button", { type: "button", onclick }, icon(name), h("span", null, text));
