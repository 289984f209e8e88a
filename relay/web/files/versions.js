// The history of a file: who, when, from which device, at what cost; look at, compare, name, save, bring back.

import { downloadUrl, get, patch, post, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, moment, size, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { busy, button, failure } from "../ui/controls.js";
import { dialog, form } from "../ui/dialog.js";
import { toast, toastError } from "../ui/toast.js";
import { compareVersions, isComparable } from "./compare.js";
import { fill } from "./preview.js";
import { folderRule } from "./retention.js";

const LABEL_MAX = 100;

/** @returns a promise: whether a version was brought back */
export function showVersions(entry, canEdit) {
  let restored = false;
  const address = `/api/v1/files/${entry.file_id}/versions`;
  return dialog(t("versions.title", { name: shown(entry.file_name) }), () => {
    const list = h("ol", { class: "versions" });
    const more = h("div", { class: "dialog-actions" });
    let versions = [];
    const page = (cursor) => get(`${address}${query({ cost: true, cursor, space_id: entry.space_id })}`);
    const show = (answer, before) => {
      versions = [...before, ...answer.versions];
      replace(list, versions.map(item));
      replace(more, answer.has_more && button(t("versions.more"), (event) => busy(event.currentTarget, async () => show(await page(answer.cursor), versions), toastError)));
    };
    const load = async () => {
      try {
        show(await page(), []);
      } catch (error) {
        replace(list, h("li", null, failure(error, load)));
      }
    };

    const item = (version) => {
      const number = version.version_number;
      const of = (action) => ({ kind: "quiet", "aria-label": t("versions.actionOf", { action, number }) });
      const older = versions.some((one) => one.version_number < number);
      return h("li", { dataset: { version: number } },
        h("div", { class: "version-facts" },
          h("strong", null, t("versions.number", { number: String(number) }), " · ", moment(version.created_at), tags(version)),
          h("span", { class: "soft" }, [who(version), ago(version.created_at)].join(" · ")),
          h("span", { class: "soft" }, facts(version))),
        h("div", { class: "version-actions" },
          button(t("action.preview"), () => look(version), of(t("action.preview"))),
          older && isComparable(version) && button(t("versions.compare"), () => compareVersions(entry, versions, version), of(t("versions.compare"))),
          canEdit && button(t("versions.label"), () => name(version), of(t("versions.label"))),
          h("a", { class: "button quiet", href: downloadUrl(entry, version.version_id), download: entry.file_name, "aria-label": t("versions.actionOf", { action: t("action.download"), number }) }, t("action.download")),
          canEdit && !version.is_current && button(t("action.restore"), (event) => restore(event.currentTarget, version), of(t("action.restore")))));
    };

    const look = (version) => dialog(`${shown(entry.file_name)} – ${moment(version.created_at)}`, (_, element) => {
      const stage = h("div", { class: "stage" });
      element.addEventListener("close", fill(stage, { ...entry, file_size: version.file_size }, downloadUrl(entry, version.version_id)));
      return stage;
    }, { wide: true, className: "preview" });

    const name = async (version) => {
      const done = await form(t("versions.labelTitle", { number: String(version.version_number) }), {
        label: [t("versions.labelField"), { value: version.label ?? "", maxlength: LABEL_MAX, autocomplete: "off" }, t("versions.labelHint")],
      }, t("action.save"), ({ label }) => patch(`${address}/${version.version_id}${query({ space_id: entry.space_id })}`, { label: label.trim() || null }));
      if (!done) return;
      version.label = done.label;
      replace(list, versions.map(item));
      list.querySelector(`[data-version="${version.version_number}"] button`)?.focus();
    };

    const restore = (element, version) => busy(element, async () => {
      await post(`${address}/${version.version_id}/restore${query({ space_id: entry.space_id })}`);
      restored = true;
      toast(t("versions.restored", { name: shown(entry.file_name), when: moment(version.created_at) }));
      await load();
    }, toastError);

    load();
    return [h("p", { class: "soft" }, t("versions.intro")), list, more, folderRule(entry.space_id)];
  }, { wide: true }).then(() => restored);
}

const tags = (version) => [
  version.is_current && h("span", { class: "tag" }, t("versions.current")),
  version.label && h("span", { class: "tag version-label" }, shown(version.label)),
];

/** The person and the device; of the web there is no device. */
function who(version) {
  const person = version.by_me ? t("versions.you") : version.user_email ? shown(version.user_email) : t("versions.somebody");
  return t(version.origin === "web" ? "versions.byWeb" : "versions.byDevice", { person, device: shown(version.device_name) });
}

/** Size, what it alone takes, and whether it is what an older one was. */
function facts(version) {
  const parts = [size(version.file_size)];
  if (version.cost_bytes !== null) parts.push(version.cost_bytes ? t("versions.cost", { size: size(version.cost_bytes) }) : t("versions.free"));
  if (version.same_as) parts.push(t("versions.same", { number: String(version.same_as) }));
  return parts.join(" · ");
}
