// Public links to one file or folder: the section of a dialog in which they are made, changed and ended. Whoever shows it owns the frame around it.

import { del, get, patch, post, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { busy, button, failure, field } from "../ui/controls.js";
import { confirm, dialog } from "../ui/dialog.js";
import { toast, toastError } from "../ui/toast.js";
import { canShare } from "./may.js";

const DAY_S = 24 * 3600;
/** Ends that are offered, in seconds from now. */
const EXPIRIES = [["", "link.never"], [DAY_S, "link.day"], [7 * DAY_S, "link.week"], [30 * DAY_S, "link.month"]];

/** What bounds a link, in words. */
export function bounds(link) {
  const parts = [];
  if (link.state !== "active") parts.push(t(`link.state.${link.state}`));
  parts.push(t(`link.kind.${link.kind}`));
  parts.push(link.expires_at ? t("link.expires", { when: moment(link.expires_at) }) : t("link.noExpiry"));
  if (link.has_password) parts.push(t("link.hasPassword"));
  if (link.max_downloads !== null) parts.push(t("link.downloadsOf", { count: link.downloads, max: link.max_downloads }));
  else if (link.kind !== "upload") parts.push(t("link.downloads", { count: link.downloads }));
  return parts.join(" · ");
}

/** One link with what can be done to it; `changed()` is called when something was. */
export function linkItem(link, changed, { title = "" } = {}) {
  const copy = async () => {
    await navigator.clipboard.writeText(link.url);
    toast(t("link.copied"));
  };
  const end = async () => {
    if (!(await confirm(t("link.revoke"), t("link.revokeText"), t("link.revoke")))) return;
    try {
      await del(`/api/v1/links/${link.link_id}`);
      toast(t("link.revoked"));
    } catch (error) {
      toastError(error);
    }
    await changed();
  };
  const name = title ? shown(title) : link.url ?? "";
  return h("li", { class: "link-item" },
    h("div", { class: "rows-main" },
      title && h("strong", null, shown(title)),
      link.url ? h("code", { class: "link-url" }, link.url) : h("span", { class: "soft" }, t("link.unreadable")),
      h("span", { class: "soft" }, bounds(link))),
    h("div", { class: "rows-actions" },
      link.url && navigator.clipboard && button(t("action.copy"), copy, { kind: "quiet", icon: "copy", "aria-label": t("link.copyOf", { name }) }),
      link.url && button(t("link.qr"), () => showQr(link), { kind: "quiet", "aria-label": t("link.qrOf", { name }) }),
      button(t("link.edit"), async () => { if (await editLink(link)) await changed(); }, { kind: "quiet", "aria-label": t("link.editOf", { name }) }),
      button(t("link.revoke"), end, { kind: "quiet danger-text", "aria-label": t("link.revokeOf", { name }) })));
}

const showQr = (link) => dialog(t("link.qr"), (close) => [
  h("img", { class: "link-qr", src: `/api/v1/links/${link.link_id}/qr`, alt: t("link.qrAlt"), width: 260, height: 260 }),
  h("code", { class: "link-url" }, link.url),
  h("div", { class: "dialog-actions" }, button(t("action.done"), () => close(), { kind: "primary", autofocus: true })),
]);

/** The fields that a new link and a changed one have; `values()` gives what was entered, in the relay's words. */
function fields(directory, link) {
  const kinds = [["download", t("link.kind.download")], ["view", t("link.kind.view")]];
  if (directory && !link) kinds.push(["upload", t("link.kind.upload")]);
  const kind = link?.kind === "upload" ? null : field(t("link.kind"), { options: kinds, name: "kind" }, t("link.kindHint"));
  const expiry = field(t("link.expiry"), { options: [...(link ? [["keep", t("link.keep")]] : []), ...EXPIRIES.map(([value, key]) => [value, t(key)])], name: "expiry" });
  const password = field(t("link.password"), { name: "password", type: "password", autocomplete: "new-password", maxlength: 1024 }, t(link?.has_password ? "link.passwordKept" : "link.passwordHint"));
  const limit = link?.kind === "upload" ? null : field(t("link.limit"), { name: "limit", type: "number", min: 1, max: 1000000, inputmode: "numeric" }, t("link.limitHint"));
  const open = link?.has_password ? h("label", { class: "check-line" }, h("input", { type: "checkbox", name: "noPassword" }), h("span", null, t("link.noPassword"))) : null;
  if (link && kind) kind.input.value = link.kind;
  if (link?.max_downloads && limit) limit.input.value = link.max_downloads;
  const showLimit = () => {
    if (limit) limit.element.hidden = kind?.input.value === "upload";
  };
  kind?.input.addEventListener("change", showLimit);
  showLimit();
  const values = () => {
    const out = {};
    if (kind) out.kind = kind.input.value;
    if (expiry.input.value === "") link && (out.expires_at = null);
    else if (expiry.input.value !== "keep") out.expires_in = Number(expiry.input.value);
    if (password.input.value) out.password = password.input.value;
    else if (open?.querySelector("input").checked) out.password = null;
    if (limit && !limit.element.hidden) {
      if (limit.input.value) out.max_downloads = Number(limit.input.value);
      else if (link) out.max_downloads = null;
    }
    return out;
  };
  const clear = () => {
    password.input.value = "";
    if (limit) limit.input.value = "";
  };
  return { element: h("div", { class: "link-fields" }, [kind, expiry, limit, password].map((part) => part?.element), open), values, clear };
}

/** A form around fields of a link: errors are shown in it, and it stays. */
function linkForm(made, action, submit, cancel) {
  const alert = h("p", { class: "field-error", role: "alert", hidden: true });
  const go = button(action, null, { kind: "primary", type: "submit" });
  return h("form", {
    class: "form",
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      alert.hidden = true;
      busy(go, () => submit(made.values()), (error) => {
        alert.textContent = error.text ?? error.message;
        alert.hidden = false;
      });
    },
  }, made.element, alert, h("div", { class: "dialog-actions" }, cancel, go));
}

/** Changes a link in a dialog; gives whether it was changed. */
const editLink = (link) => dialog(t("link.editTitle"), (close) => {
  const made = fields(link.is_directory, link);
  return linkForm(made, t("link.save"), async (values) => {
    await patch(`/api/v1/links/${link.link_id}`, values);
    close(true);
  }, button(t("action.cancel"), () => close(false)));
}, { wide: true });

/** What stands for a whole folder where an id is asked for. */
const ROOT = "00000000-0000-0000-0000-000000000000";

/** The section of the sharing dialog: the links of a file, a directory or a whole folder, and the form for another one. */
export function links({ space, entry }) {
  if (!canShare({ space, entry })) return null;
  const list = h("ul", { class: "rows links" });
  const load = async () => {
    try {
      const { links: here } = await get(`/api/v1/links${query({ file_id: entry?.file_id ?? ROOT, space_id: space.id })}`);
      list.hidden = here.length === 0;
      replace(list, here.map((link) => linkItem(link, load)));
    } catch (error) {
      list.hidden = false;
      replace(list, h("li", null, failure(error, load)));
    }
  };
  const made = fields(!entry || entry.kind === "directory", null);
  const create = linkForm(made, t("link.create"), async (values) => {
    const what = entry ? { file_id: entry.file_id, space_id: space.id } : { path: "/", space_id: space.id };
    const { link } = await post("/api/v1/links", { ...what, ...values });
    made.clear();
    await load();
    toast(t("link.made"));
    [...list.querySelectorAll(".link-url")].find((code) => code.textContent === link.url)?.closest("li").querySelector("button")?.focus();
  }, null);
  load();
  return { title: t("link.section"), element: h("div", { class: "link-section" }, h("p", { class: "soft" }, t("link.intro")), list, create) };
}
