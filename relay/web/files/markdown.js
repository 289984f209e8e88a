// Markdown as the relay has read it: a tree of elements, made here one by one. Nothing of it is ever markup (R46).

import { get, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { button } from "../ui/controls.js";
import { code, showText } from "./text.js";

const PLAIN = new Set(["p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "li", "em", "strong", "del", "code", "br", "hr", "tr", "td", "th"]);
const DEPTH_MAX = 64;

/** Where the relay tells of a file whose bytes are at `address`. */
function previewAddress(address) {
  const url = new URL(address, location.href);
  const [space, version] = ["space_id", "version"].map((name) => url.searchParams.get(name) ?? undefined);
  return `${url.pathname.replace(/^\/download\//, "/api/v1/previews/")}${query({ space_id: space, v: version })}`;
}

const textIn = (node) => (typeof node === "string" ? node : (node.children ?? []).map(textIn).join(""));

/** The element of a node; text stays text, and what is not known is what is in it. */
export function element(node, depth = 0) {
  if (typeof node === "string") return node;
  if (depth > DEPTH_MAX) return textIn(node);
  const inner = () => (node.children ?? []).map((child) => element(child, depth + 1));
  if (PLAIN.has(node.tag)) {
    // The dialog's title is above all headings of the text.
    const tag = /^h[1-6]$/.test(node.tag) ? `h${Math.min(6, Number(node.tag[1]) + 2)}` : node.tag;
    const align = ["left", "center", "right"].includes(node.align) ? `align-${node.align}` : undefined;
    const scope = tag === "th" ? "col" : undefined;
    return h(tag, { class: /^h/.test(node.tag) && node.tag !== "hr" ? node.tag : align, scope }, inner());
  }
  if (node.tag === "ol") return h("ol", { start: node.start ?? 1 }, inner());
  if (node.tag === "table") return h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": t("preview.table") }, h("table", null, h("tbody", null, inner())));
  if (node.tag === "pre") return h("pre", { tabindex: "0" }, code(textIn(node), node.language ?? "", null));
  if (node.tag === "check") return h("span", { class: "tick", role: "img", "aria-label": t(node.checked ? "preview.ticked" : "preview.unticked") }, node.checked ? "☑" : "☐");
  if (node.tag === "picture") return h("span", { class: "tag" }, textIn(node) || t("preview.picture"));
  if (node.tag === "a" && /^(https?|mailto):/i.test(node.href ?? "")) return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer" }, inner());
  return inner();
}

/**
 * Shows Markdown on the stage, and its source if wanted.
 * @returns whether it is a text
 */
export async function showMarkdown(stage, file, address, signal) {
  const { nodes, is_cut: isCut } = await get(previewAddress(address), { signal });
  const body = h("div", { class: "stage-body" });
  const frame = h("article", { class: "markdown", tabindex: "0", "aria-label": shown(file.file_name) },
    isCut && h("p", { class: "preview-note" }, t("preview.cutText")), nodes.length ? nodes.map((node) => element(node)) : t("preview.empty"));
  const choice = (isSource) => button(t(isSource ? "preview.source" : "preview.formatted"), () => show(isSource).catch((error) => error.name === "AbortError" || replace(body, error.text ?? t("preview.broken"))), { kind: "quiet" });
  const buttons = [choice(false), choice(true)];
  const show = async (isSource) => {
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(Boolean(i) === isSource)));
    if (isSource) await showText(body, file, address, signal);
    else replace(body, frame);
  };
  await show(false);
  replace(stage, h("div", { class: "text-view" }, h("div", { class: "stage-tools", role: "toolbar", "aria-label": t("preview.view") }, buttons), body));
  return true;
}
