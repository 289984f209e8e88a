// The history of a file: who, when, from which device; look at, save, bring back.

import { downloadUrl, get, post, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, moment, size, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { busy, button, failure } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { toast, toastError } from "../ui/toast.js";
import { fill } from "./preview.js";

/** @returns a promise: whether a version was brought back */
export function showVersions(entry, canEdit) {
  let restored = false;
  return dialog(t("versions.title", { name: shown(entry.file_name) }), () => {
    const list = h("ol", { class: "versions" });
    const load = async () => {
      try {
        const { versions } = await get(`/api/v1/files/${entry.file_id}/versions${query({ space_id: entry.space_id })}`);
        replace(list, versions.map(item));
      } catch (error) {
        replace(list, h("li", null, failure(error, load)));
      }
    };
    const item = (version) => h("li", null,
      h("div", { class: "version-facts" },
        h("strong", null, moment(version.created_at), version.is_current && h("span", { class: "tag" }, t("versions.current"))),
        h("span", { class: "soft" }, `${ago(version.created_at)} · ${size(version.file_size)}${version.device_name ? ` · ${shown(version.device_name)}` : ""}`)),
      h("div", { class: "version-actions" },
        button(t("action.preview"), () => look(version), { kind: "quiet" }),
        h("a", { class: "button quiet", href: downloadUrl(entry, version.version_id), download: entry.file_name }, t("action.download")),
        canEdit && !version.is_current && button(t("action.restore"), (event) => restore(event.currentTarget, version), { kind: "quiet" })));
    const look = (version) => dialog(`${shown(entry.file_name)} – ${moment(version.created_at)}`, (_, element) => {
      const stage = h("div", { class: "stage" });
      element.addEventListener("close", fill(stage, { ...entry, file_size: version.file_size }, downloadUrl(entry, version.version_id)));
      return stage;
    }, { wide: true, className: "preview" });
    const restore = (element, version) => busy(element, async () => {
      await post(`/api/v1/files/${entry.file_id}/versions/${version.version_id}/restore${query({ space_id: entry.space_id })}`);
      restored = true;
      toast(t("versions.restored", { name: shown(entry.file_name), when: moment(version.created_at) }));
      await load();
    }, toastError);
    load();
    return [h("p", { class: "soft" }, t("versions.intro")), list];
  }, { wide: true }).then(() => restored);
}
