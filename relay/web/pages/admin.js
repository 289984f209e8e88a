// For administrators: users with their quotas, invitations, the audit log.

import { del, get, patch, post, query, user } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, size, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { button, failure, page } from "../ui/controls.js";
import { confirm, form, reveal } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { toast, toastError } from "../ui/toast.js";

const GB = 1_000_000_000;

export function create(shell) {
  shell.title(t("nav.admin"));
  /** Addresses by the ids of users, as far as they are known. */
  const emails = new Map();
  const { element, loaded } = users(emails);
  return { element: page(t("nav.admin"), [], h("div", { class: "cards" }, element, audit(emails, loaded))) };
}

/** What a person wrote as a quota, in bytes; null for none. */
export function quotaOf(text) {
  const trimmed = text.trim().replace(",", ".");
  if (!trimmed) return null;
  const gigabytes = Number(trimmed);
  if (!Number.isFinite(gigabytes) || gigabytes < 0) throw Object.assign(new Error(t("admin.quotaWrong")), { text: t("admin.quotaWrong"), field: "quota" });
  return Math.round(gigabytes * GB);
}

function users(emails) {
  const body = h("tbody");
  const note = h("div");
  const table = h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": t("admin.users") },
    h("table", { class: "people-table" }, h("thead", null, h("tr", null, [t("field.email"), t("admin.role"), t("storage.label")].map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col" }, h("span", { class: "unseen" }, t("action.more"))))), body));
  async function load() {
    try {
      const found = [];
      let after;
      do {
        const answer = await get(`/api/v1/admin/users${query({ after, limit: 500 })}`);
        found.push(...answer.users);
        after = answer.next_after;
      } while (after);
      for (const one of found) emails.set(one.user_id, one.email);
      replace(body, found.map(row));
      replace(note, null);
      table.hidden = false;
    } catch (error) {
      table.hidden = true;
      replace(note, failure(error, load));
    }
  }
  const row = (one) => h("tr", null,
    h("th", { scope: "row" }, shown(one.email), one.name && one.name !== one.email && h("span", { class: "soft block" }, shown(one.name))),
    h("td", null, t(`role.${one.role}`), one.disabled && h("span", { class: "tag warn" }, t("admin.disabled"))),
    h("td", null, one.storage_limit ? t("storage.of", { used: size(one.storage_used), limit: size(one.storage_limit) }) : size(one.storage_used)),
    h("td", null, h("button", { type: "button", class: "icon-button", "aria-label": t("admin.actions", { email: one.email }), "aria-haspopup": "menu", "aria-expanded": "false", onclick: (event) => menu(one, event.currentTarget) }, icon("more"))));
  function menu(one, anchor) {
    const self = one.user_id === user().user_id;
    const path = `/api/v1/admin/users/${one.user_id}`;
    const change = (body) => run(() => patch(path, body));
    openMenu([
      { label: t("admin.quota"), icon: "settings", run: () => quota(one, path) },
      { label: t("admin.reset"), icon: "retry", run: () => reset(one, path) },
      !self && { label: t(one.role === "admin" ? "admin.makeUser" : "admin.makeAdmin"), icon: "admin", run: () => change({ role: one.role === "admin" ? "user" : "admin" }) },
      !self && { label: t(one.disabled ? "admin.enable" : "admin.disable"), icon: "pause", run: () => change({ disabled: !one.disabled }) },
      !self && null,
      !self && { label: t("action.delete"), icon: "trash", danger: true, run: () => remove(one, path) },
    ].filter((item) => item !== false), anchor, one.email);
  }
  async function run(work) {
    try {
      await work();
    } catch (error) {
      toastError(error);
    }
    await load();
  }
  async function quota(one, path) {
    const value = one.storage_limit ? String(one.storage_limit / GB) : "";
    await form(t("admin.quota"), { quota: [t("admin.quotaField"), { value, inputmode: "decimal" }, t("admin.quotaHint")] }, t("action.save"), (values) => patch(path, { storage_limit: quotaOf(values.quota) }));
    await load();
  }
  const reset = (one, path) => run(async () => {
    const { code, expires_at: end } = await post(`${path}/reset-code`);
    await reveal(t("admin.reset"), t("admin.resetText", { email: one.email, when: moment(end) }), [code]);
  });
  async function remove(one, path) {
    if (!(await confirm(t("admin.remove", { email: one.email }), t("admin.removeText"), t("action.delete")))) return;
    await run(() => del(path));
  }
  async function add() {
    await form(t("admin.add"), {
      email: [t("field.email"), { type: "email", autocomplete: "off", required: true }],
      name: [t("field.fullName"), { autocomplete: "off" }],
      password: [t("field.newPassword"), { type: "password", autocomplete: "new-password", required: true }, t("field.passwordHint")],
    }, t("admin.add"), async ({ email, name, password }) => {
      await post("/api/v1/admin/users", { email, password, ...(name ? { name } : {}) });
      toast(t("admin.added", { email }));
    });
    await load();
  }
  const invite = () => run(async () => {
    const { code, expires_at: end } = await post("/api/v1/admin/invites");
    await reveal(t("admin.invite"), t("admin.inviteText", { when: moment(end) }), [code]);
  });
  const loaded = load();
  const element = h("section", { class: "card" }, h("h2", null, t("admin.users")), note, table,
    h("div", { class: "card-actions" }, button(t("admin.add"), add, { kind: "primary", icon: "add" }), button(t("admin.invite"), invite)));
  return { element, loaded };
}

/** Ids by their first digits, which is enough to tell them apart on one page. */
export const shortIds = (text) => text.replace(/\b([0-9a-f]{8})[0-9a-f]{24}\b/g, "$1…");

function audit(emails, loaded) {
  const list = h("ul", { class: "rows log" });
  const note = h("div");
  let before;
  const more = button(t("action.showMore"), () => load(), { hidden: true });
  const row = (entry) => {
    const facts = [emails.get(entry.user_id), entry.detail, entry.remote_ip].filter(Boolean).map(shown).join(" · ");
    return h("li", null, h("time", { datetime: entry.at }, moment(entry.at)), h("code", null, shown(entry.event)), h("span", { class: "soft", title: facts }, shortIds(facts)));
  };
  async function load() {
    try {
      const [{ entries }] = await Promise.all([get(`/api/v1/admin/audit${query({ limit: 50, before })}`), loaded]);
      list.append(...entries.map(row));
      before = entries.at(-1)?.audit_id;
      more.hidden = entries.length < 50;
      replace(note, null);
    } catch (error) {
      replace(note, failure(error, load));
    }
  }
  load();
  return h("section", { class: "card" }, h("h2", null, t("admin.audit")), list, note, more);
}
