// A text file, a part at a time: lines with their numbers, colours for source code, pages for what is long.

import { send } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { size, t } from "../lib/i18n.js";
import { extension, shown } from "../lib/names.js";
import { iconButton } from "../ui/controls.js";
import { lines } from "./highlight.js";

/** How much is shown at once. */
const PART_BYTES = 128 * 1024;
/** The longest character of UTF-8 goes so far beyond the end of a part. */
const BEYOND = 3;
/** A part of more lines stands without numbers. */
const LINES_MAX = 20_000;
/** What has no ending is a text if it begins like one. */
const LOOK_BYTES = 4096;

/** Of so many bytes one may be a control character; more are not a person's text. */
const STRANGE_SHARE = 32;
/** So much of the beginning is judged. */
const LOOKED_AT_BYTES = 8192;

/** Control characters other than backspace, tab, ends of lines and pages, and escape. */
const isStrange = (byte) => byte < 32 && !(byte >= 8 && byte <= 13) && byte !== 27;

/** The text of bytes; null if they are none. */
export function textOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  const begin = bytes.subarray(0, LOOKED_AT_BYTES);
  const strange = begin.filter(isStrange).length;
  if (begin.includes(0) || strange > begin.length / STRANGE_SHARE) return null;
  return new TextDecoder().decode(bytes);
}

/** The whole characters that begin in a part: `bytes` are from its beginning to some bytes after its end. */
export function whole(bytes, isFirst, length = PART_BYTES) {
  const isInside = (byte) => (byte & 0xc0) === 0x80;
  let from = 0;
  let to = Math.min(length, bytes.length);
  if (!isFirst) while (from < BEYOND && isInside(bytes[from])) from += 1;
  while (to < bytes.length && isInside(bytes[to])) to += 1;
  return bytes.subarray(from, to);
}

/** The ending that says which language a file is of; some are known by their whole name. */
const languageOf = (name) => extension(name) || name.toLowerCase();

/** The code of these lines as elements; numbered from `first`, if it is known. */
export function code(text, language, first) {
  const split = lines(text, language);
  // What ends with a line's end has no empty line after it.
  if (split.length > 1 && !split.at(-1).length) split.pop();
  const spans = (line) => line.map(([kind, part]) => (kind ? h("span", { class: `code-${kind}` }, part) : part));
  if (first === null || split.length > LINES_MAX) return h("code", null, split.map((line, i) => [i > 0 && "\n", spans(line)]));
  const element = h("code", { class: "numbered" }, split.map((line) => h("span", { class: "line" }, spans(line), "\n")));
  element.style.setProperty("--first", first - 1);
  element.style.setProperty("--digits", `${String(first + split.length).length}ch`);
  return element;
}

/** Reads bytes of a file. */
async function read(address, from, to, fileSize, signal) {
  const headers = from > 0 || to < fileSize ? { range: `bytes=${from}-${to - 1}` } : {};
  return new Uint8Array(await (await send("GET", address, { headers, signal })).arrayBuffer());
}

/** Whether a file without a known ending begins like a text. */
export async function looksLikeText(file, address, signal) {
  const begin = await read(address, 0, Math.min(LOOK_BYTES, file.file_size), file.file_size, signal);
  if (textOf(begin) === null) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(begin, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/**
 * Shows a text on the stage.
 * @returns whether it is one
 */
export async function showText(stage, file, address, signal) {
  const parts = Math.max(1, Math.ceil(file.file_size / PART_BYTES));
  /** The number of the first line of each part, as far as they were read in order. */
  const firsts = new Map([[0, 1]]);
  const name = shown(file.file_name);
  const pre = h("pre", { tabindex: "0", "aria-label": name });
  const where = h("span", { role: "status" });
  const [toFirst, back, on, toLast] = [["first", 0], ["previous", -1], ["next", 1], ["last", 0]].map(([word, by]) =>
    iconButton(word, t(`preview.part.${word}`), () => go(by ? at + by : word === "first" ? 0 : parts - 1).catch(failed)));
  const pager = parts > 1 && h("div", { class: "stage-tools", role: "toolbar", "aria-label": t("preview.parts") }, toFirst, back, where, on, toLast);
  let at = 0;

  const failed = (error) => {
    if (error.name !== "AbortError") replace(pre, error.text ?? t("preview.broken"));
  };

  async function go(to) {
    const from = to * PART_BYTES;
    const bytes = await read(address, from, Math.min(file.file_size, from + PART_BYTES + BEYOND), file.file_size, signal);
    const isWide = to === 0 && bytes[0] === 0xff && bytes[1] === 0xfe;
    const text = to === 0 ? textOf(isWide ? bytes : whole(bytes, true)) : new TextDecoder().decode(whole(bytes, false));
    if (text === null) return false;
    at = to;
    const first = firsts.get(to) ?? null;
    if (first !== null) firsts.set(to + 1, first + text.split("\n").length - 1);
    replace(pre, code(text, languageOf(file.file_name), first));
    pre.scrollTop = 0;
    where.textContent = t("preview.partOf", { part: to + 1, parts });
    toFirst.disabled = back.disabled = to === 0;
    on.disabled = toLast.disabled = to === parts - 1;
    return true;
  }

  if (!(await go(0))) return false;
  replace(stage, h("div", { class: "text-view" }, pager, pre));
  if (pager) pager.title = size(file.file_size);
  return true;
}
