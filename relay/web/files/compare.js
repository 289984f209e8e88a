// Two versions of a text, line by line. What came and what went is said by signs and words, not by colour alone.

import { get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { withStyle } from "../lib/style.js";
import { field } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";

/** What the relay compares at most, in bytes. */
const TEXT_MAX_BYTES = 2 * 1024 * 1024;
/** Lines that are put on the page. */
const ROWS_MAX = 4000;
const SIGNS = { same: "", added: "+", removed: "−" };

/** Whether a version may be compared at all; whether it is text, the relay finds out. */
export const isComparable = (version) => version.file_size <= TEXT_MAX_BYTES;

/** Shows what `newer` changed; any two of `versions` can be chosen. */
export async function compareVersions(entry, versions, newer) {
  await withStyle("history");
  return dialog(t("compare.title", { name: shown(entry.file_name) }), () => {
    const options = versions.map((one) => [String(one.version_number), optionText(one)]);
    const from = field(t("compare.from"), { options });
    const to = field(t("compare.to"), { options });
    const before = versions.find((one) => one.version_number < newer.version_number);
    from.input.value = String(before.version_number);
    to.input.value = String(newer.version_number);
    const result = h("div", { class: "diff-result", "aria-live": "polite" });
    let asked = 0;
    const load = async () => {
      const mine = ++asked;
      replace(result, h("p", { class: "soft" }, t("preview.loading")));
      try {
        const answer = await get(`/api/v1/files/${entry.file_id}/diff${query({ from: from.input.value, to: to.input.value, space_id: entry.space_id })}`);
        if (mine === asked) replace(result, drawn(answer));
      } catch (error) {
        if (mine === asked) replace(result, h("p", { class: "field-error", role: "alert" }, error.text ?? String(error)));
      }
    };
    for (const side of [from, to]) side.input.addEventListener("change", load);
    load();
    return [h("div", { class: "field-row" }, from.element, to.element), result];
  }, { wide: true, className: "compare" });
}

const optionText = (version) => [t("versions.number", { number: String(version.version_number) }), moment(version.created_at), version.label && `“${shown(version.label)}”`].filter(Boolean).join(" · ");

function drawn(answer) {
  if (!answer.hunks.length) return h("p", null, t("compare.equal"));
  const rows = [];
  let isCut = answer.is_cut;
  for (const hunk of answer.hunks) {
    let [old, now] = [hunk.old_start, hunk.new_start];
    rows.push(h("tr", { class: "diff-head" }, h("td", { colspan: 4 }, t("compare.place", { old: String(old), now: String(now) }))));
    for (const line of hunk.lines) {
      if (rows.length >= ROWS_MAX) {
        isCut = true;
        break;
      }
      const isOld = line.kind !== "added";
      const isNew = line.kind !== "removed";
      rows.push(h("tr", { class: `diff-${line.kind}` },
        h("td", { class: "diff-number" }, isOld ? String(old) : ""),
        h("td", { class: "diff-number" }, isNew ? String(now) : ""),
        h("td", { class: "diff-sign" }, SIGNS[line.kind] && [h("span", { "aria-hidden": "true" }, SIGNS[line.kind]), h("span", { class: "unseen" }, t(`compare.${line.kind}`))]),
        h("td", { class: "diff-text" }, line.text, line.is_cut && h("span", { class: "soft" }, ` ${t("compare.noEnd")}`))));
      old += isOld ? 1 : 0;
      now += isNew ? 1 : 0;
    }
  }
  const counts = [t("compare.countAdded", { count: answer.added }), t("compare.countRemoved", { count: answer.removed })].join(", ");
  return [
    h("p", null, counts),
    isCut && h("p", { class: "preview-note" }, t("compare.cut")),
    h("div", { class: "diff-scroll", tabindex: "0", role: "region", "aria-label": t("compare.lines") },
      h("table", { class: "diff" },
        h("thead", { class: "unseen" }, h("tr", null, ["compare.oldLine", "compare.newLine", "compare.change", "compare.text"].map((key) => h("th", { scope: "col" }, t(key))))),
        h("tbody", null, rows))),
  ];
}
