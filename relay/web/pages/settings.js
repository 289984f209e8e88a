// A person's own settings: appearance, password, second factor, app passwords, logins.

import { del, get, post, user } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, currentLanguage, languages, moment, remember, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { button, field, page } from "../ui/controls.js";
import { confirm, form, reveal } from "../ui/dialog.js";
import { shortcuts } from "../ui/search.js";
import { toast, toastError } from "../ui/toast.js";

export function create(shell) {
  shell.title(t("nav.settings"));
  const parts = [appearance(), account(), retention(), secondFactor(), appPasswords(), sessions()];
  return { element: page(t("nav.settings"), [], h("div", { class: "cards" }, parts)) };
}

const card = (title, text, ...content) => h("section", { class: "card" }, h("h2", null, title), text && h("p", { class: "soft" }, text), content);

/** A relay that does not serve this shows nothing of it. */
function absent(element, error) {
  element.hidden = error.status === 404;
  return element.hidden;
}

function appearance() {
  const theme = field(t("settings.theme"), { options: ["system", "light", "dark"].map((one) => [one, t(`settings.theme.${one}`)]) });
  theme.input.value = localStorage.getItem("ferry.theme") ?? "system";
  theme.input.addEventListener("change", () => {
    const { value } = theme.input;
    if (value === "system") {
      localStorage.removeItem("ferry.theme");
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem("ferry.theme", value);
      document.documentElement.dataset.theme = value;
    }
  });
  const language = field(t("settings.language"), { options: languages() });
  language.input.value = currentLanguage();
  language.input.addEventListener("change", () => {
    remember(language.input.value);
    location.reload();
  });
  const keys = h("input", { type: "checkbox", checked: shortcuts.on, onchange: () => (shortcuts.on = keys.checked) });
  return card(t("settings.appearance"), "", h("div", { class: "field-row" }, theme.element, language.element), h("label", { class: "check-line" }, keys, t("settings.shortcuts")));
}

function account() {
  const change = () => form(t("settings.changePassword"), {
    current_password: [t("field.currentPassword"), { type: "password", autocomplete: "current-password", required: true }],
    new_password: [t("field.newPassword"), { type: "password", autocomplete: "new-password", minlength: 8, required: true }, t("field.passwordHint")],
  }, t("settings.changePassword"), async (values) => {
    await post("/auth/password/change", values);
    toast(t("settings.passwordChanged"));
  }, { intro: t("settings.passwordText") });
  return card(t("settings.account"), t("settings.signedInAs", { email: user().email }), h("div", { class: "card-actions" }, button(t("settings.changePassword"), change)));
}

/** How long old versions and the trash of the own folders are kept. */
function retention() {
  const body = h("div");
  async function load() {
    try {
      const [{ rule }, { changeRule, ruleText }] = await Promise.all([get("/api/v1/me/retention"), import("../files/retention.js")]);
      const change = async () => {
        if (await changeRule(null, rule)) await load();
      };
      replace(body, h("p", null, ruleText(rule)), h("div", { class: "card-actions" }, button(t("retention.change"), change)));
    } catch (error) {
      absent(element, error) || replace(body, h("p", { class: "field-error" }, error.text));
    }
  }
  const element = card(t("retention.title"), t("retention.card"), body);
  load();
  return element;
}

function secondFactor() {
  const body = h("div");
  const codeField = { code: [t("field.code"), { inputmode: "numeric", autocomplete: "one-time-code", required: true }] };
  async function load() {
    try {
      const state = await get("/api/v1/me/totp");
      replace(body,
        h("p", null, state.enabled ? t("totp.on", { count: state.recovery_codes_left }) : t("totp.off")),
        h("div", { class: "card-actions" }, state.enabled
          ? [button(t("totp.newCodes"), renew), button(t("totp.remove"), remove, { kind: "danger-text" })]
          : button(t("totp.begin"), begin)));
    } catch (error) {
      absent(element, error) || replace(body, h("p", { class: "field-error" }, error.text));
    }
  }
  async function begin() {
    let secret;
    const began = await form(t("totp.begin"), { password: [t("field.currentPassword"), { type: "password", autocomplete: "current-password", required: true }] }, t("action.continue"),
      async ({ password }) => (secret = await post("/api/v1/me/totp", { password })));
    if (!began) return;
    if (!(await reveal(t("totp.begin"), t("totp.secretText"), [secret.secret]))) return;
    const done = await form(t("totp.begin"), codeField, t("action.confirm"), ({ code }) => post("/api/v1/me/totp/confirm", { code: code.trim() }), { intro: t("totp.confirmText") });
    if (done) await reveal(t("totp.codes"), t("totp.codesText"), done.recovery_codes);
    await load();
  }
  async function renew() {
    const done = await form(t("totp.newCodes"), codeField, t("action.continue"), ({ code }) => post("/api/v1/me/recovery-codes", { code: code.trim() }));
    if (done) await reveal(t("totp.codes"), t("totp.codesText"), done.recovery_codes);
    await load();
  }
  async function remove() {
    await form(t("totp.remove"), codeField, t("totp.remove"), ({ code }) => del("/api/v1/me/totp", { code: code.trim() }), { kind: "danger", intro: t("totp.removeText") });
    await load();
  }
  const element = card(t("totp.title"), t("totp.text"), body);
  load();
  return element;
}

const SCOPES = ["dav", "dav files:read", "files:read", "files:write"];

function appPasswords() {
  const list = h("ul", { class: "rows" });
  async function load() {
    try {
      const { tokens } = await get("/api/v1/me/tokens");
      replace(list, tokens.length ? tokens.map(row) : h("li", { class: "soft" }, t("tokens.none")));
    } catch (error) {
      absent(element, error) || replace(list, h("li", { class: "field-error" }, error.text));
    }
  }
  const row = (token) => h("li", null,
    h("div", { class: "rows-main" }, h("strong", null, shown(token.name)),
      h("span", { class: "soft" }, [token.scopes.map((scope) => t(`scope.${scope}`)).join(", "), token.last_used_at ? t("sessions.used", { ago: ago(token.last_used_at) }) : t("tokens.unused")].join(" · "))),
    button(t("action.revoke"), () => revoke(token), { kind: "quiet danger-text", "aria-label": t("tokens.revoke", { name: shown(token.name) }) }));
  async function add() {
    const made = await form(t("tokens.add"), {
      name: [t("field.name"), { required: true, maxlength: 64, autocomplete: "off" }, t("tokens.nameHint")],
      scope: [t("tokens.for"), { options: SCOPES.map((scope) => [scope, t(`scope.${scope}`)]) }],
    }, t("action.create"), ({ name, scope }) => post("/api/v1/me/tokens", { name, scopes: scope.split(" ") }));
    if (made) await reveal(t("tokens.made"), t("tokens.madeText"), [made.secret ?? made.token]);
    await load();
  }
  async function revoke(token) {
    if (!(await confirm(t("tokens.revoke", { name: shown(token.name) }), t("tokens.revokeText"), t("action.revoke")))) return;
    await del(`/api/v1/me/tokens/${token.token_id}`).catch(toastError);
    await load();
  }
  const address = h("p", { class: "soft" }, t("tokens.dav"), " ", h("code", null, `${location.origin}/dav/`));
  const element = card(t("tokens.title"), t("tokens.text"), address, list, h("div", { class: "card-actions" }, button(t("tokens.add"), add)));
  load();
  return element;
}

function sessions() {
  const list = h("ul", { class: "rows" });
  async function load() {
    try {
      const found = (await get("/api/v1/me/sessions")).sessions.sort((a, b) => b.current - a.current || (a.last_used_at < b.last_used_at ? 1 : -1));
      replace(list, found.map(row));
    } catch (error) {
      replace(list, h("li", { class: "field-error" }, error.text));
    }
  }
  const row = (session) => h("li", null,
    h("div", { class: "rows-main" },
      h("strong", null, t(session.device_id ? "sessions.device" : "sessions.browser"), session.current && h("span", { class: "tag" }, t("sessions.this"))),
      h("span", { class: "soft", title: moment(session.last_used_at) }, t("sessions.facts", { began: moment(session.created_at), ago: ago(session.last_used_at) }))),
    !session.current && button(t("sessions.end"), () => end(session), { kind: "quiet danger-text" }));
  async function end(session) {
    await del(`/api/v1/me/sessions/${session.session_id}`).catch(toastError);
    await load();
  }
  load();
  return card(t("sessions.title"), t("sessions.text"), list);
}
