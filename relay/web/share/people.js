// People with whom a folder or a file is shared: who they are, what they may do, and the way to invite and remove.

import { del, get, patch, post, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { busy, button, failure, field } from "../ui/controls.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";

/** The roles that can be given. */
export const ROLES = ["viewer", "editor"];

/** A person for display. */
export const personName = (person) => shown(person.name ?? person.email);

const roleOptions = () => ROLES.map((role) => [role, t(`share.role.${role}`)]);

/** The section of the sharing dialog. */
export function people({ space, entry, onChange }) {
  if (space.role !== "owner" || entry?.version_id) return null;
  if (entry && entry.kind !== "file") {
    // A directory would need rules of its own in every device's feed; the folder that it is in, or a link, does it.
    return { title: t("share.people"), element: h("p", { class: "soft" }, t("share.wholeOnly", { name: shown(space.name) })) };
  }
  const what = entry ? { file_id: entry.file_id, space_id: space.id } : { space_id: space.id };
  const isOwner = space.role === "owner";
  const list = h("ul", { class: "rows people" });
  const empty = h("p", { class: "soft", hidden: true }, t("share.none"));

  async function load() {
    try {
      const { shares } = await get(`/api/v1/shares${query(what)}`);
      replace(list, shares.map(row));
      empty.hidden = shares.some((share) => share.role !== "owner");
    } catch (error) {
      replace(list, h("li", null, failure(error, load)));
    }
  }

  function row(share) {
    const name = personName(share.with);
    const canChange = isOwner && share.role !== "owner";
    return h("li", { dataset: { email: share.with.email } }, icon("user"),
      h("div", { class: "rows-main" },
        h("strong", null, name, share.state === "pending" && h("span", { class: "tag" }, t("share.invited"))),
        share.with.name && h("span", { class: "soft" }, shown(share.with.email))),
      h("div", { class: "rows-actions" }, canChange
        ? [roleChoice(share, name), button(t("action.revoke"), (event) => remove(event.currentTarget, share), { kind: "quiet danger-text", "aria-label": t("share.removeWho", { name }) })]
        : h("span", { class: "soft" }, t(`share.role.${share.role}`))));
  }

  function roleChoice(share, name) {
    const choice = h("select", { "aria-label": t("share.roleOf", { name }) }, roleOptions().map(([value, text]) => h("option", { value }, text)));
    choice.value = share.role;
    choice.addEventListener("change", () => busy(choice, async () => {
      await patch(`/api/v1/shares/${share.share_id}`, { role: choice.value });
      toast(t("share.roleChanged", { name }));
      await load();
      list.querySelector(`li[data-email="${CSS.escape(share.with.email)}"] select`)?.focus();
    }, (error) => {
      toastError(error);
      choice.value = share.role;
    }));
    return choice;
  }

  const remove = (element, share) => busy(element, async () => {
    await del(`/api/v1/shares/${share.share_id}`);
    toast(t("share.removed", { name: personName(share.with) }));
    await load();
    list.closest("dialog")?.querySelector("input")?.focus();
  }, toastError);

  // Somebody accepts while this is open.
  const refresh = coalesced(load, 200);
  const stop = onChange?.(({ space: changed }) => changed === null && refresh());
  queueMicrotask(() => list.closest("dialog")?.addEventListener("close", () => stop?.()));
  load();
  return { title: t("share.people"), element: h("div", { class: "share-people" }, isOwner && inviteForm(what, load), list, empty) };
}

function inviteForm(what, done) {
  const email = field(t("field.email"), { type: "email", autocomplete: "off", required: true }, t("share.emailHint"));
  const role = field(t("share.role"), { options: roleOptions() });
  const go = button(t("share.invite"), null, { kind: "primary", type: "submit" });
  const form = h("form", { class: "form", novalidate: "" }, h("div", { class: "field-row" }, email.element, role.element), h("div", { class: "dialog-actions" }, go));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    email.problem(null);
    busy(go, async () => {
      await post("/api/v1/shares", { ...what, email: email.input.value, role: role.input.value });
      toast(t("share.inviteSent", { email: shown(email.input.value) }));
      email.input.value = "";
      email.input.focus();
      await done();
    }, (error) => {
      email.problem(error.text);
      email.input.focus();
    });
  });
  return form;
}
