// Hashes files off the page's thread: the whole file, so that the relay can tell whether it has it, and each chunk as it leaves.

import { Sha256 } from "./sha256.js";

/** Up to here the browser's own SHA-256 takes the file at once, which is several times as fast. */
const AT_ONCE_MAX_BYTES = 64 * 1024 * 1024;
const PIECE_BYTES = 4 * 1024 * 1024;

/** What nobody waits for any more. */
const stopped = new Set();

const hex = (buffer) => Array.from(new Uint8Array(buffer), (b) => b.toString(16).padStart(2, "0")).join("");

async function whole(id, file) {
  // A page over plain HTTP has no crypto.subtle, except on this machine.
  if (file.size <= AT_ONCE_MAX_BYTES && self.crypto.subtle) {
    return hex(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  }
  const hash = new Sha256();
  const read = (at) => file.slice(at, at + PIECE_BYTES).arrayBuffer();
  // The next piece is read while this one is hashed.
  let next = read(0);
  for (let at = 0; at < file.size; at += PIECE_BYTES) {
    const bytes = await next;
    if (stopped.delete(id)) return null;
    next = read(at + PIECE_BYTES);
    next.catch(() => {});
    hash.update(new Uint8Array(bytes));
    postMessage({ id, hashed: Math.min(at + PIECE_BYTES, file.size) });
  }
  return hash.hex();
}

async function piece(file, from, to) {
  const bytes = await file.slice(from, to).arrayBuffer();
  const digest = self.crypto.subtle ? hex(await crypto.subtle.digest("SHA-256", bytes)) : new Sha256().update(new Uint8Array(bytes)).hex();
  return { length: bytes.byteLength, digest };
}

addEventListener("message", async ({ data }) => {
  const { id, task, file, from, to } = data;
  try {
    if (task === "stop") stopped.add(id);
    else if (task === "whole") postMessage({ id, done: await whole(id, file) });
    else postMessage({ id, done: await piece(file, from, to) });
  } catch (error) {
    // A file that was deleted or changed on disk since it was chosen.
    postMessage({ id, failed: error.name });
  }
});
