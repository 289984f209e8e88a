// Shows a file without downloading it. Nothing that a file holds runs here: pictures, sound and film go to the browser's own elements, text is text,
// and everything else (HTML, PDF, documents) is offered as a download (R47).

import { downloadUrl, send } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { size, t, moment } from "../lib/i18n.js";
import { kindOf, shown } from "../lib/names.js";
import { button, iconButton } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";

/** How much of a text is shown. */
const TEXT_MAX_BYTES = 512 * 1024;

/** Shows `entry`; arrows go through `files`. */
export function showPreview(entry, files, actions) {
  return dialog(shown(entry.file_name), (_, element) => {
    let at = Math.max(0, files.indexOf(entry));
    const stage = h("div", { class: "stage" });
    const foot = h("div", { class: "preview-foot" });
    let leave = () => {};
    const draw = () => {
      leave();
      const file = files[at] ?? entry;
      element.querySelector("h2").textContent = shown(file.file_name);
      leave = fill(stage, file);
      replace(foot,
        iconButton("previous", t("preview.previous"), () => step(-1), { disabled: at <= 0 }),
        h("span", { class: "preview-facts" }, `${size(file.file_size)} · ${moment(file.modified_at ?? file.updated_at)}`),
        !file.version_id && iconButton("versions", t("action.versions"), () => actions.versions(file)),
        iconButton("download", t("action.download"), () => actions.download([file])),
        iconButton("next", t("preview.next"), () => step(1), { disabled: at >= files.length - 1 }));
    };
    const step = (by) => {
      const next = at + by;
      if (next < 0 || next >= files.length) return;
      at = next;
      draw();
    };
    element.addEventListener("keydown", (event) => {
      if (event.target.closest("video,audio,pre")) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    element.addEventListener("close", () => leave());
    draw();
    return [stage, foot];
  }, { wide: true, className: "preview" });
}

/** Puts a file on the stage; returns the way to leave it. */
export function fill(stage, file, address = downloadUrl(file)) {
  const kind = kindOf(file);
  const name = shown(file.file_name);
  const failed = () => replace(stage, notShown(file, address, t("preview.broken")));
  if (kind === "image") {
    replace(stage, h("img", { src: address, alt: name, onerror: failed }));
    return () => {};
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
  if (kind === "text" || kind === "code" || kind === "sheet" || file.file_size === 0) {
    const abort = new AbortController();
    showText(stage, file, address, abort.signal).catch((error) => error.name === "AbortError" || replace(stage, notShown(file, address, error.text ?? t("preview.broken"))));
    return () => abort.abort();
  }
  replace(stage, notShown(file, address, t("preview.none")));
  return () => {};
}

async function showText(stage, file, address, signal) {
  replace(stage, h("p", { class: "preview-note", role: "status" }, t("preview.loading")));
  const headers = file.file_size > TEXT_MAX_BYTES ? { range: `bytes=0-${TEXT_MAX_BYTES - 1}` } : {};
  const bytes = file.file_size ? new Uint8Array(await (await send("GET", address, { headers, signal })).arrayBuffer()) : new Uint8Array();
  const text = textOf(bytes);
  if (text === null) {
    replace(stage, notShown(file, address, t("preview.none")));
    return;
  }
  replace(stage,
    file.file_size > TEXT_MAX_BYTES && h("p", { class: "preview-note" }, t("preview.cut", { size: size(TEXT_MAX_BYTES) })),
    text ? h("pre", { tabindex: "0", "aria-label": shown(file.file_name) }, text) : h("p", { class: "preview-note" }, t("preview.empty")));
}

/** The text of bytes; null if they are none. */
export function textOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes.subarray(0, 8192).includes(0)) return null;
  return new TextDecoder().decode(bytes);
}

function notShown(file, address, why) {
  const save = () => {
    const link = h("a", { href: address, download: file.file_name });
    link.click();
  };
  return h("div", { class: "empty" }, icon(kindOf(file), "large"), h("p", null, why), button(t("action.download"), save, { kind: "primary", icon: "download" }));
}
