// Small pictures in lists: asked for when a row has stayed in sight for a moment, so that who scrolls fast asks for nothing.

import { downloadUrl, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { extension } from "../lib/names.js";

const ENDINGS = new Set(["jpg", "jpeg", "png", "gif", "webp"]);
const FILE_MAX_BYTES = 32 * 1024 * 1024;
/** Pictures that only browsers read: shown as they are, if they are small. */
const AS_THEY_ARE = new Set(["svg", "avif", "bmp"]);
const AS_IT_IS_MAX_BYTES = 256 * 1024;
const STAY_MS = 120;
/** Addresses that were remembered at most. */
const KNOWN_MAX = 5000;

/** What became of each address: whether there is a picture. */
const known = new Map();

function remember(address, isThere) {
  if (known.size >= KNOWN_MAX) known.clear();
  known.set(address, isThere);
}

/** The address of a file's small picture; of another content, another address. Nothing where there is none. */
export function thumbnailUrl(entry, side = 256) {
  if (entry.kind !== "file" || !entry.file_size) return null;
  const ending = extension(entry.file_name);
  if (AS_THEY_ARE.has(ending) && entry.file_size <= AS_IT_IS_MAX_BYTES) return downloadUrl(entry);
  if (!ENDINGS.has(ending) || entry.file_size > FILE_MAX_BYTES) return null;
  return `/api/v1/thumbnails/${encodeURIComponent(entry.file_id)}${query({ space_id: entry.space_id, s: side, v: entry.version_id ?? undefined, of: entry.file_hash?.slice(0, 16) })}`;
}

/** A place that shows `instead` until there is a picture. */
export function thumbnail(entry, instead) {
  const address = thumbnailUrl(entry);
  if (!address || known.get(address) === false) return instead;
  const place = h("span", { class: "thumbnail" }, instead);
  const load = () => {
    const picture = h("img", { alt: "", decoding: "async", draggable: false });
    picture.addEventListener("load", () => {
      remember(address, true);
      replace(place, picture);
    });
    // Refused, or not now: the icon stays.
    picture.addEventListener("error", () => remember(address, false));
    picture.src = address;
  };
  if (known.get(address)) load();
  else setTimeout(() => place.isConnected && load(), STAY_MS);
  return place;
}
