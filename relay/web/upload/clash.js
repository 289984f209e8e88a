// Names that are taken already: a new version, both, or neither; asked once for many.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { freeName, shown } from "../lib/names.js";
import { button } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";

/**
 * @param files of one directory, as gathered
 * @param taken names that are there, with what they are: a Map from name to kind
 * @returns the files to send, some under another name; undefined when the person took it all back
 */
export async function settleNames(files, taken) {
  const names = new Set(taken.keys());
  const out = [];
  let forAll = null;
  const clashes = files.filter((one) => isClash(one, taken)).length;
  let left = clashes;
  for (const one of files) {
    if (!isClash(one, taken)) {
      out.push(one);
      continue;
    }
    const choice = forAll ?? (await ask(one, taken.get(one.name), --left));
    if (!choice) return undefined;
    if (choice.all) forAll = choice;
    if (choice.what === "replace" && taken.get(one.name) === "file") out.push(one);
    else if (choice.what !== "skip") {
      const name = freeName(one.name, names);
      names.add(name);
      out.push({ ...one, name });
    }
  }
  return out;
}

const isClash = (one, taken) => one.directory.length === 0 && !one.isDirectory && taken.has(one.name);

function ask(one, kind, left) {
  return dialog(t("clash.title"), (close) => {
    const all = h("input", { type: "checkbox", id: "clash-all" });
    const choose = (what) => close({ what, all: all.checked });
    return [
      h("p", null, t(kind === "file" ? "clash.text" : "clash.directory", { name: shown(one.name) })),
      left > 0 && h("p", { class: "check-line" }, all, h("label", { for: "clash-all" }, t("clash.all", { count: left }))),
      h("div", { class: "dialog-actions" },
        button(t("clash.skip"), () => choose("skip")),
        button(t("clash.both"), () => choose("both")),
        kind === "file" && button(t("clash.replace"), () => choose("replace"), { kind: "primary", autofocus: true })),
    ];
  });
}
