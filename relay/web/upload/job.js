// One file on its way to the relay: hashed, announced, sent in chunks, completed. What is interrupted goes on where it stopped: the relay says which
// chunks it has.

import { get, post, send } from "../lib/api.js";
import { hashFile, readPiece } from "./hasher.js";

const CHUNKS_AT_ONCE = 3;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;

/** States: waiting, hashing, sending, offline, paused, done, same, failed, cancelled. */
export class Job {
  constructor(file, name, path, space, fileId) {
    Object.assign(this, { file, name, path, space, fileId, state: "waiting", sent: 0, hashed: 0, error: null, upload: null, result: null });
    this.onChange = () => {};
    this.abort = new AbortController();
  }

  /** What cannot be sent at all: it stands in the list to say so. */
  static missed(name, path, space, text) {
    const job = new Job(null, name, path, space);
    return Object.assign(job, { state: "failed", error: { text } });
  }

  get size() {
    return this.file?.size ?? 0;
  }

  get isOver() {
    return ["done", "same", "failed", "cancelled"].includes(this.state);
  }

  get isActive() {
    return ["hashing", "sending", "offline"].includes(this.state);
  }

  #to(state, error = null) {
    this.state = state;
    this.error = error;
    this.onChange(this);
  }

  pause() {
    if (this.isOver) return;
    this.#to("paused");
    this.abort.abort();
  }

  resume() {
    if (!this.file || (this.state !== "paused" && this.state !== "failed")) return;
    this.abort = new AbortController();
    this.#to("waiting");
  }

  async cancel() {
    const { upload } = this;
    this.#to("cancelled");
    this.abort.abort();
    // What was sent is swept away anyway; this only says it sooner.
    if (upload) await send("DELETE", `/upload/${upload.version_id}`).catch(() => {});
  }

  /** Brings the file to the relay; ends when it is there, or paused, cancelled or failed. */
  async run() {
    const { signal } = this.abort;
    let waitMs = RETRY_MIN_MS;
    while (!signal.aborted) {
      try {
        await this.#once(signal);
        return;
      } catch (error) {
        if (signal.aborted || error.name === "AbortError") return;
        if (["upload_expired", "not_found"].includes(error.code)) {
          this.upload = null;
          this.sent = 0;
        } else if (!error.isTemporary) return this.#to("failed", error);
        this.#to("offline", error);
        await pause((error.retryAfterS ? error.retryAfterS * 1000 : waitMs) * (0.75 + Math.random() / 2), signal);
        waitMs = Math.min(waitMs * 2, RETRY_MAX_MS);
      }
    }
  }

  async #once(signal) {
    if (!this.hash) {
      this.#to("hashing");
      this.hash = await hashFile(this.file, (bytes) => {
        this.hashed = bytes;
        this.onChange(this);
      });
      if (signal.aborted) return;
    }
    this.#to("sending");
    let wanted;
    if (this.upload) {
      const state = await get(`/upload/${this.upload.version_id}`, { signal });
      if (state.completed) return this.#finish(signal);
      const received = new Set(state.received);
      wanted = range(this.upload.num_chunks).filter((index) => !received.has(index));
      this.sent = Math.min(this.size, received.size * this.upload.chunk_size);
    } else {
      const begun = await post("/upload/init", {
        file_name: this.name, file_size: this.size, file_hash: this.hash, path: this.path, space_id: this.space.id, file_id: this.fileId,
        mtime: this.file.lastModified ? new Date(this.file.lastModified).toISOString() : undefined,
      }, { signal });
      if (begun.deduplication) {
        this.result = begun;
        this.sent = this.size;
        return this.#to("same");
      }
      this.upload = begun;
      wanted = range(begun.num_chunks);
    }
    await this.#sendAll(wanted, signal);
    await this.#finish(signal);
  }

  async #finish(signal) {
    this.result = await post(`/upload/complete/${this.upload.version_id}`, {}, { signal });
    this.sent = this.size;
    this.#to("done");
  }

  async #sendAll(wanted, signal) {
    const left = [...wanted];
    const sender = async () => {
      for (let index = left.shift(); index !== undefined; index = left.shift()) await this.#sendChunk(index, signal);
    };
    const senders = range(Math.min(CHUNKS_AT_ONCE, left.length)).map(sender);
    const results = await Promise.allSettled(senders);
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
  }

  async #sendChunk(index, signal) {
    const { chunk_size: chunkSize, version_id: id } = this.upload;
    const from = index * chunkSize;
    const to = Math.min(this.size, from + chunkSize);
    const { bytes, digest } = await readPiece(this.file, from, to);
    if (bytes.byteLength !== to - from) throw Object.assign(new Error("changed"), { name: "NotReadableError", isFile: true });
    const base64 = btoa(String.fromCharCode(...digest.match(/../g).map((pair) => parseInt(pair, 16))));
    await send("PUT", `/upload/${id}/chunks/${index}`, { body: bytes, headers: { "content-type": "application/octet-stream", "content-digest": `sha-256=:${base64}:` }, signal });
    this.sent = Math.min(this.size, this.sent + to - from);
    this.onChange(this);
  }
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
