// What can be done to files, and the dialogs for it. Used by the tools, the context menu and the keys alike.

import { downloadUrl, post, query, refusal, send } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { freeName, joinPath, problemWith, shown, stemEnd } from "../lib/names.js";
import { go } from "../lib/router.js";
import { dialog, form } from "../ui/dialog.js";
import { toast, toastError } from "../ui/toast.js";
import { canShare } from "../share/may.js";

/** Actions of one request to the relay. */
const AT_ONCE = 500;
/** Ids that fit into an address. */
const IN_ADDRESS = 100;

/** Lets the browser save what an address gives. */
function save(address, name) {
  const link = h("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** An error that belongs to the one field of a form. */
function nameProblem(name) {
  const key = problemWith(name);
  if (key) throw Object.assign(new Error(t(key)), { text: t(key) });
}

/** Runs actions of one kind; gives the results, in order. */
export async function batch(space, actions) {
  const results = [];
  for (let at = 0; at < actions.length; at += AT_ONCE) {
    results.push(...(await post("/api/v1/files/batch", { space_id: space.id, actions: actions.slice(at, at + AT_ONCE) })).results);
  }
  return results;
}

/** One action, whose refusal is an error. */
async function single(space, action) {
  const [result] = await batch(space, [action]);
  if (result.ok) return result.file;
  throw Object.assign(new Error(result.detail), { text: refusal(result), code: result.code });
}

export class Actions {
  #isPreviewing = false;

  constructor(page, shell) {
    this.page = page;
    this.shell = shell;
  }

  /** A conflicted copy that shares its file with the original is changed by settling the conflict only. */
  canChange(entry) {
    return this.page.canEdit && !entry.version_id;
  }

  /** The menu of what is selected; `tool` marks those that also have a button above the list. */
  forSelection(selection) {
    const [one] = selection;
    const single_ = selection.length === 1;
    const isFile = single_ && one.kind === "file";
    const files = selection.filter((entry) => entry.kind === "file");
    const change = selection.every((entry) => this.canChange(entry));
    return [
      single_ && { label: t(one.kind === "directory" ? "action.open" : "action.preview"), icon: one.kind === "directory" ? "directory" : "file", run: () => this.page.open(one), key: "Enter" },
      files.length === selection.length && { label: t("action.download"), icon: "download", tool: true, run: () => this.download(files) },
      single_ && canShare({ space: this.page.space, entry: one }) && { label: t("action.share"), icon: "share", tool: true, optional: true, run: () => this.share(one) },
      (!single_ || one.kind === "directory") && selection.every((entry) => !entry.version_id && entry.kind !== "symlink") && { label: t("action.zip"), icon: "archive", tool: true, optional: true, run: () => this.downloadZip(selection) },
      isFile && !one.version_id && { label: t("action.versions"), icon: "versions", tool: true, optional: true, run: () => this.versions(one) },
      single_ && one.is_conflict && { label: t("action.settle"), icon: "conflict", tool: true, optional: true, run: () => go("conflicts") },
      change && null,
      change && single_ && { label: t("action.rename"), icon: "rename", run: () => this.rename(one), key: "F2" },
      change && { label: t("action.move"), icon: "move", tool: true, run: () => this.move(selection) },
      change && null,
      change && { label: t("action.delete"), icon: "trash", tool: true, danger: true, run: () => this.remove(selection), key: t("key.delete") },
    ].filter((item) => item !== false);
  }

  forDirectory() {
    if (!this.page.canEdit) return [];
    return [
      { label: t("action.newFolder"), icon: "newFolder", run: () => this.newFolder() },
      null,
      { label: t("action.uploadFiles"), icon: "upload", run: () => this.page.pick(false) },
      { label: t("action.uploadFolder"), icon: "directory", run: () => this.page.pick(true) },
    ];
  }

  async newFolder() {
    const { space, path } = this.page;
    const proposal = freeName(t("newFolder.name"), new Set(this.page.entries.map((entry) => entry.file_name)));
    const made = await form(t("action.newFolder"), { name: [t("field.name"), { value: proposal, autocomplete: "off", maxlength: 255 }] }, t("action.create"), ({ name }) => {
      nameProblem(name);
      return single(space, { action: "mkdir", path, file_name: name });
    }, { ready: ({ name }) => name.input.select() });
    if (made) await this.#after(made);
  }

  async rename(entry) {
    const { space, path } = this.page;
    const done = await form(t("rename.title", { name: shown(entry.file_name) }), { name: [t("field.name"), { value: entry.file_name, autocomplete: "off", maxlength: 255 }] }, t("action.rename"), ({ name }) => {
      nameProblem(name);
      if (name === entry.file_name) return entry;
      return single(space, { action: "move", file_id: entry.file_id, path, file_name: name });
    }, { ready: ({ name }) => name.input.setSelectionRange(0, entry.kind === "directory" ? entry.file_name.length : stemEnd(entry.file_name)) });
    if (done) await this.#after(done);
  }

  async move(entries) {
    const { space, path } = this.page;
    const moving = new Set(entries.map((entry) => joinPath(path, entry.file_name)));
    const { pickFolder } = await import("./folder-picker.js");
    const target = await pickFolder(space, path, moving, t("move.title", { count: entries.length }));
    if (target === undefined || target === path) return;
    await this.#batch(entries.map((entry) => ({ action: "move", file_id: entry.file_id, path: target })), entries, "move.done", async (moved) => {
      await this.#batch(moved.map((entry) => ({ action: "move", file_id: entry.file_id, path })), moved, "move.undone");
    });
  }

  async remove(entries) {
    await this.#batch(entries.map((entry) => ({ action: "delete", file_id: entry.file_id })), entries, "delete.done", async (gone) => {
      await this.#batch(gone.map((entry) => ({ action: "restore", file_id: entry.file_id })), gone, "delete.undone");
    });
  }

  /** Runs one action for each entry, says how it went, and offers the way back. */
  async #batch(actions, entries, doneKey, undo) {
    let results;
    try {
      results = await batch(this.page.space, actions);
    } catch (error) {
      toastError(error);
      return;
    }
    const done = entries.filter((_, i) => results[i].ok);
    results.forEach((result, i) => result.ok || toast(t("batch.failed", { name: shown(entries[i].file_name), why: refusal(result) }), { error: true }));
    if (done.length) toast(t(doneKey, { count: done.length, name: shown(done[0].file_name) }), undo && { action: { label: t("action.undo"), run: () => undo(done) } });
    await this.#after(null);
  }

  async #after(entry) {
    await this.page.load();
    if (entry) {
      this.page.grid.select([`${entry.file_id}/`]);
      this.page.grid.activate(`${entry.file_id}/`);
    }
    this.page.grid.element.focus();
  }

  /** Saves files; several one after the other. */
  download(entries) {
    for (const entry of entries) save(downloadUrl(entry), entry.file_name);
  }

  /** Saves a selection, folders with all that is in them, as one archive. */
  async downloadZip(entries) {
    const ids = entries.map((entry) => entry.file_id);
    if (ids.length <= IN_ADDRESS) return save(`/api/v1/archives${query({ space_id: this.page.space.id, file_ids: ids.join(",") })}`, "");
    try {
      const response = await send("POST", "/api/v1/archives", { json: { space_id: this.page.space.id, file_ids: ids } });
      const address = URL.createObjectURL(await response.blob());
      save(address, `${shown(this.page.space.name)}.zip`);
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      toastError(error);
    }
  }

  /** Whoever clicks again while it is on its way means the same. */
  async preview(entry) {
    if (this.#isPreviewing) return;
    this.#isPreviewing = true;
    const place = location.hash;
    const isHere = () => location.hash === place;
    try {
      const files = this.page.entries.filter((other) => other.kind === "file");
      const { showPreview } = await import("./preview.js");
      await showPreview(entry, files, this, isHere);
    } finally {
      this.#isPreviewing = false;
    }
    if (isHere()) this.page.grid.element.focus();
  }

  async versions(entry) {
    const { showVersions } = await import("./versions.js");
    if (await showVersions(entry, this.page.canEdit)) await this.page.load();
  }

  /** Shares a file or a directory, or the whole folder. */
  async share(entry) {
    const { showSharing } = await import("../share/dialog.js");
    await showSharing({ space: this.page.space, entry, onChange: (listener) => this.shell.onChange(listener) });
  }

  help() {
    const rows = ["move", "select", "range", "all", "open", "up", "rename", "delete", "menu", "find", "search"];
    return dialog(t("help.title"), () => h("dl", { class: "keys" }, rows.map((row) => [h("dt", null, h("kbd", null, t(`help.${row}.key`))), h("dd", null, t(`help.${row}`))])));
  }
}
