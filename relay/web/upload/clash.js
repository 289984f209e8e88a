// Names that are taken already: a new version, both, or neither; asked once for many, and once for a folder with all that is in it.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { freeName, shown } from "../lib/names.js";
import { button } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";

/** What stands in the list only to say that it is missing. */
const isMissing = (one) => Boolean(one.unreadable || one.incomplete || one.beyond);

/** The name that something will have, or be below, in the directory that it goes to. */
const topOf = (one) => one.directory[0] ?? one.name;

const isFolder = (one) => one.directory.length > 0 || Boolean(one.isDirectory);

/**
 * @param files of one directory, as gathered
 * @param taken names that are there, with what they are: a Map from name to kind
 * @param ask how the person is asked: gives `{what, all}`, or nothing when they took it all back
 * @returns the files to send, some under another name; undefined when the person took it all back
 */
export async function settleNames(files, taken, ask = askPerson) {
  const names = new Set([...taken.keys(), ...files.map(topOf)]);
  const clashes = new Map();
  for (const one of files) {
    if (!isMissing(one) && taken.has(topOf(one))) clashes.set(keyOf(one), one);
  }
  const settled = new Map();
  let left = clashes.size;
  let forAll = null;
  for (const [key, one] of clashes) {
    left -= 1;
    const name = topOf(one);
    const kind = taken.get(name);
    const choice = forAll ?? (await ask({ name, kind, isFolder: isFolder(one), left }));
    if (!choice) return undefined;
    if (choice.all) forAll = choice;
    if (choice.what === "skip") settled.set(key, null);
    else if (choice.what === "replace" && canReplace(isFolder(one), kind)) settled.set(key, name);
    else {
      const free = freeName(name, names);
      names.add(free);
      settled.set(key, free);
    }
  }
  const out = [];
  for (const one of files) {
    const name = settled.get(keyOf(one));
    if (name === undefined) out.push(one);
    else if (name !== null) out.push(renamed(one, name));
  }
  return out;
}

/** A folder goes into a folder, and a file becomes the next version of a file. */
const canReplace = (folder, kind) => kind === (folder ? "directory" : "file");

/** A folder and a file of one drop are two things, whatever their names. */
const keyOf = (one) => `${one.directory.length || one.isDirectory || one.incomplete ? "folder" : "file"} ${topOf(one)}`;

const renamed = (one, name) => (one.directory.length ? { ...one, directory: [name, ...one.directory.slice(1)] } : { ...one, name });

function askPerson({ name, kind, isFolder: folder, left }) {
  return dialog(t("clash.title"), (close) => {
    const all = h("input", { type: "checkbox", id: "clash-all" });
    const choose = (what) => close({ what, all: all.checked });
    const text = folder && kind === "directory" ? "clash.folder" : kind === "directory" ? "clash.directory" : "clash.text";
    return [
      h("p", null, t(text, { name: shown(name) })),
      left > 0 && h("p", { class: "check-line" }, all, h("label", { for: "clash-all" }, t("clash.all", { count: left }))),
      h("div", { class: "dialog-actions" },
        button(t("clash.skip"), () => choose("skip")),
        button(t("clash.both"), () => choose("both")),
        canReplace(folder, kind) && button(t(folder ? "clash.merge" : "clash.replace"), () => choose("replace"), { kind: "primary", autofocus: true })),
    ];
  });
}
