// The page of a link for uploads: sends files one after another, each in pieces. Nobody is logged in here; the address is the right to do it.

import { Sha256 } from "../lib/sha256.js";

const form = document.getElementById("drop");
const input = document.getElementById("files");
const sent = document.getElementById("sent");
const base = `/s/${form.dataset.token}/upload/`;
/** How often a piece is sent again. */
const TRIES = 5;
/** Bytes that are hashed at once. */
const PIECE = 4 * 1024 * 1024;

/** How far a step has come, in the words of the page. */
const percent = (step, part) => form.dataset[step].replace("{percent}", () => Math.floor(part * 100));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function hashOf(file, progress) {
  const hash = new Sha256();
  for (let at = 0; at < file.size; at += PIECE) {
    hash.update(new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer()));
    progress(Math.min(at + PIECE, file.size) / file.size);
  }
  return hash.hex();
}

async function ask(path, body, type) {
  for (let tried = 1; ; tried += 1) {
    let answer = null;
    try {
      answer = await fetch(base + path, { method: "POST", headers: { "Content-Type": type }, body });
    } catch (error) {
      if (tried === TRIES) throw new Error(form.dataset.unreachable);
    }
    if (answer && answer.ok) return answer.json();
    if (answer && ![429, 502, 503, 504].includes(answer.status)) {
      const problem = await answer.json().catch(() => ({}));
      throw new Error(problem.detail || form.dataset.refused);
    }
    if (tried === TRIES) throw new Error(form.dataset.busy);
    await pause(Math.min(30, Number(answer?.headers.get("Retry-After")) || tried) * 1000);
  }
}

async function send(file, say) {
  const hash = await hashOf(file, (part) => say(percent("reading", part)));
  const begun = await ask("init", JSON.stringify({ file_name: file.name, file_size: file.size, file_hash: hash }), "application/json");
  for (let index = 0; index < begun.num_chunks; index += 1) {
    say(percent("sending", index / begun.num_chunks));
    const piece = file.slice(index * begun.chunk_size, (index + 1) * begun.chunk_size);
    const query = `?upload_id=${encodeURIComponent(begun.upload_id)}&chunk_index=${index}`;
    await ask(`chunk${query}`, piece, "application/octet-stream");
  }
  await ask("complete", JSON.stringify({ upload_id: begun.upload_id }), "application/json");
  say(form.dataset.sent);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  let failed = false;
  for (const file of [...input.files]) {
    const line = document.createElement("li");
    sent.append(line);
    const say = (what) => {
      line.textContent = `${file.name}: ${what}`;
    };
    try {
      await send(file, say);
    } catch (error) {
      failed = true;
      say(error.message);
      line.className = "alert";
    }
  }
  if (!failed) form.reset();
  button.disabled = false;
});
