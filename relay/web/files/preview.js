// Shows a file without downloading it. Nothing that a file holds runs here: pictures, sound and film go to the browser's own elements, documents to its
// own viewer, which is no part of this page; text is text, Markdown a tree of elements. Everything else is offered as a download (R47).

import { downloadUrl } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { size, t, moment } from "../lib/i18n.js";
import { extension, kindOf, shown } from "../lib/names.js";
import { withStyle } from "../lib/style.js";
import { button, iconButton } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { looksLikeText, showText } from "./text.js";
import { zoomable } from "./zoom.js";

/** The style of all this comes with it: the first view needs none of it. */
withStyle("preview");

/** Where the arrows have a meaning of their own. */
const OWN_ARROWS = "video,audio,pre,iframe,.zoomed,.markdown,.table-frame";

/** Shows `entry`; arrows go through `files`. Whoever has left meanwhile (`isHere()`) sees nothing of it. */
export async function showPreview(entry, files, actions, isHere = () => true) {
  await withStyle("preview");
  if (!isHere()) return undefined;
  return dialog(shown(entry.file_name), (_, element) => {
    let at = Math.max(0, files.indexOf(entry));
    const stage = h("div", { class: "stage" });
    const facts = h("span", { class: "preview-facts" });
    const place = h("span", { class: "unseen", role: "status" });
    const previous = iconButton("previous", t("preview.previous"), () => step(-1), { "aria-keyshortcuts": "ArrowLeft" });
    const next = iconButton("next", t("preview.next"), () => step(1), { "aria-keyshortcuts": "ArrowRight" });
    const file = () => files[at] ?? entry;
    const versions = iconButton("versions", t("action.versions"), () => actions.versions(file()));
    const save = iconButton("download", t("action.download"), () => actions.download([file()]), { autofocus: true });
    let leave = () => {};
    const draw = () => {
      const wasInside = stage.contains(document.activeElement);
      leave();
      element.querySelector("h2").textContent = shown(file().file_name);
      leave = fill(stage, file());
      // What had the focus is gone; keys go on to the dialog.
      if (wasInside) save.focus();
      facts.textContent = `${size(file().file_size)} · ${moment(file().modified_at ?? file().updated_at)}`;
      versions.hidden = Boolean(file().version_id);
      // A button that goes off must not take the focus with it.
      if ((at <= 0 && previous === document.activeElement) || (at >= files.length - 1 && next === document.activeElement)) save.focus();
      previous.disabled = at <= 0;
      next.disabled = at >= files.length - 1;
    };
    const step = (by) => {
      const to = at + by;
      if (to < 0 || to >= files.length) return;
      at = to;
      draw();
      place.textContent = t("preview.place", { name: shown(file().file_name), at: at + 1, count: files.length });
    };
    element.addEventListener("keydown", (event) => {
      if (event.target.closest(OWN_ARROWS) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    element.addEventListener("close", () => leave());
    draw();
    return [stage, h("div", { class: "preview-foot" }, previous, facts, place, versions, save, next)];
  }, { wide: true, className: "preview" });
}

/** Puts a file on the stage; returns the way to leave it. */
export function fill(stage, file, address = downloadUrl(file)) {
  const kind = file.file_size === 0 ? "empty" : kindOf(file);
  const name = shown(file.file_name);
  const failed = () => replace(stage, notShown(file, address, t("preview.broken")));
  if (kind === "empty") {
    replace(stage, h("p", { class: "preview-note" }, t("preview.empty")));
    return () => {};
  }
  if (kind === "image") {
    const { element, end } = zoomable(address, name, failed);
    replace(stage, element);
    return end;
  }
  if (kind === "video" || kind === "audio") {
    const media = h(kind, { src: address, controls: true, preload: "metadata", "aria-label": name, onerror: failed });
    replace(stage, media);
    return () => {
      media.removeEventListener("error", failed);
      media.pause();
      media.removeAttribute("src");
      media.load();
    };
  }
  if (kind === "pdf") {
    replace(stage, pdf(file, address, name));
    return () => replace(stage);
  }
  const abort = new AbortController();
  replace(stage, h("p", { class: "preview-note", role: "status" }, t("preview.loading")));
  const none = () => replace(stage, notShown(file, address, t("preview.none")));
  show(kind, stage, file, address, abort.signal).then((done) => done || abort.signal.aborted || none(),
    (error) => error.name === "AbortError" || replace(stage, notShown(file, address, error.text ?? t("preview.broken"))));
  return () => abort.abort();
}

/** Shows what may be a text; gives whether it is one. */
async function show(kind, stage, file, address, signal) {
  if (["md", "markdown"].includes(extension(file.file_name))) return (await import("./markdown.js")).showMarkdown(stage, file, address, signal);
  if (["text", "code", "sheet"].includes(kind)) return showText(stage, file, address, signal);
  // A name without an ending says nothing: `LICENSE`, `Makefile`, `.profile`.
  return kind === "file" && (await looksLikeText(file, address, signal)) && showText(stage, file, address, signal);
}

/** The browser's own viewer, where it has one. */
function pdf(file, address, name) {
  const inline = `${address}${address.includes("?") ? "&" : "?"}inline=1`;
  const open = h("a", { class: "button", href: inline, target: "_blank", rel: "noopener" }, t("preview.newTab"));
  if (!navigator.pdfViewerEnabled) return notShown(file, address, t("preview.noViewer"));
  return h("div", { class: "text-view" }, h("div", { class: "stage-tools" }, open), h("iframe", { class: "viewer", src: inline, title: name }));
}

function notShown(file, address, why) {
  const save = () => {
    const link = h("a", { href: address, download: file.file_name });
    link.click();
  };
  return h("div", { class: "empty" }, icon(kindOf(file), "large"), h("p", null, why), button(t("action.download"), save, { kind: "primary", icon: "download" }));
}
