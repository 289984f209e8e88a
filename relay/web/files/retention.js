// How long old versions and the trash are kept: of a folder, or of all folders of a person. What a rule would take away is said before it is set.

import { get, post, put } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, size, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { withStyle } from "../lib/style.js";
import { button, field } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { toast } from "../ui/toast.js";

const PLACES_MAX = 10;
/** Rules that most people want; `own` is whatever else there is. */
const STEPS = {
  forever: { all_days: null, daily_days: null },
  month: { all_days: 30, daily_days: 0 },
  monthYear: { all_days: 30, daily_days: 365 },
  quarter: { all_days: 90, daily_days: 0 },
  year: { all_days: 365, daily_days: 0 },
};
const TRASH = [null, 30, 90, 365];

/** The address of a folder's rule; without a folder that of all own folders. */
const address = (space) => (space ? `/api/v1/folders/${space.replaceAll("-", "")}/retention` : "/api/v1/me/retention");

const stepOf = (rule) => Object.keys(STEPS).find((key) => STEPS[key].all_days === rule.all_days && STEPS[key].daily_days === rule.daily_days);

/** A rule in sentences. */
export function ruleText(rule) {
  const of = rule ?? {};
  const parts = [];
  if (of.all_days == null) parts.push(t("retention.sayForever"));
  else if (of.daily_days === 0) parts.push(t("retention.sayAll", { count: of.all_days }));
  else if (of.daily_days == null) parts.push(t("retention.sayAllDailyForever", { count: of.all_days }));
  else parts.push(t("retention.sayAllDaily", { count: of.all_days, days: of.daily_days }));
  if (of.max_versions != null) parts.push(t("retention.sayMax", { count: of.max_versions }));
  parts.push(of.trash_days == null ? t("retention.sayTrashForever") : t("retention.sayTrash", { count: of.trash_days }));
  return parts.join(" ");
}

/** The rule of a folder, for a dialog about it: what it says, and for its owner the way to change it. */
export function folderRule(space) {
  withStyle("history");
  const element = h("p", { class: "soft retention-note" });
  const load = async () => {
    try {
      const found = await get(address(space));
      const change = async () => {
        if (await changeRule(space, found.rule, found.owner_rule)) await load();
      };
      replace(element, ruleText(found.effective), " ", found.can_change && button(t("retention.change"), change, { kind: "quiet" }));
    } catch (error) {
      element.hidden = error.status === 404 || error.status === 403;
      replace(element, error.text ?? String(error));
    }
  };
  load();
  return element;
}

/** @returns a promise: whether the rule was changed */
export async function changeRule(space, rule, ownersRule = null) {
  await withStyle("history");
  return dialog(t(space ? "retention.titleFolder" : "retention.title"), (close) => {
    const step = rule ? stepOf(rule) : space ? "inherit" : "forever";
    const versions = field(t("retention.versions"), { options: [
      ...(space ? [["inherit", t("retention.inherit", { rule: ruleText(ownersRule) })]] : []),
      ...Object.keys(STEPS).map((key) => [key, t(`retention.step.${key}`)]),
      ...(step ? [] : [["own", ruleText({ ...rule, trash_days: null })]]),
    ] });
    versions.input.value = step ?? "own";
    const max = field(t("retention.max"), { type: "number", min: 1, max: 1000000, value: rule?.max_versions ?? "", inputmode: "numeric" }, t("retention.maxHint"));
    const days = rule?.trash_days ?? null;
    const trash = field(t("retention.trash"), { options: [...new Set([...TRASH, days])].map((one) => [String(one ?? ""), one ? t("retention.trashDays", { count: one }) : t("retention.trashForever")]) });
    trash.input.value = String(days ?? "");
    const outcome = h("div", { class: "retention-outcome", role: "status" });
    const alert = h("p", { class: "field-error", role: "alert", hidden: true });

    const wish = () => {
      const chosen = versions.input.value;
      if (chosen === "inherit") return null;
      const kept = chosen === "own" ? { all_days: rule.all_days, daily_days: rule.daily_days } : STEPS[chosen];
      return { ...kept, max_versions: max.input.value ? Number(max.input.value) : null, trash_days: trash.input.value ? Number(trash.input.value) : null };
    };
    const isForever = (one) => !one || (one.all_days == null && one.max_versions == null && one.trash_days == null);
    const failed = (error) => {
      alert.textContent = error.text ?? String(error);
      alert.hidden = false;
    };
    const follow = () => {
      const inherits = versions.input.value === "inherit";
      max.input.disabled = trash.input.disabled = inherits;
      alert.hidden = true;
      replace(outcome);
    };
    for (const one of [versions, max, trash]) one.input.addEventListener("change", follow);
    follow();

    const look = async () => {
      alert.hidden = true;
      const what = wish() ?? ownersRule ?? {};
      const report = await post(`${address(space)}/preview`, { rule: what });
      replace(outcome, said(report));
      return report;
    };
    const preview = button(t("retention.preview"), () => look().catch(failed));
    const save = button(t("action.save"), null, { kind: "primary", type: "submit" });
    const element = h("form", { class: "form", novalidate: true },
      h("p", null, t("retention.text")), versions.element, max.element, trash.element, outcome, alert,
      h("div", { class: "dialog-actions" }, preview, button(t("action.cancel"), () => close(false)), save));
    element.addEventListener("submit", async (event) => {
      event.preventDefault();
      save.disabled = true;
      try {
        const answer = await put(address(space), { rule: wish() });
        toast(isForever(wish() ?? ownersRule) ? t("retention.saved") : t("retention.savedLater", { when: answer.next_at ? moment(answer.next_at) : t("retention.tomorrow") }));
        close(true);
      } catch (error) {
        failed(error);
        save.disabled = false;
      }
    });
    return element;
  }, { wide: true });
}

/** What would go, in words, with some of the files. */
function said(report) {
  if (!report.versions && !report.trash_entries) return h("p", null, t("retention.nothing"));
  return [
    h("p", null, t("retention.wouldGo", { versions: report.versions, files: report.files, trash: report.trash_entries, size: size(report.freed_bytes) })),
    h("ul", { class: "soft" }, report.named.slice(0, PLACES_MAX).map((one) => h("li", null, t("retention.ofFile", { path: shown(one.path), count: one.versions.length })))),
    report.files > PLACES_MAX && h("p", { class: "soft" }, t("retention.andMore")),
  ];
}
