// One file on its way to the relay: hashed, announced, sent in chunks, completed. What is interrupted goes on where it stopped: the relay says which
// chunks it has. A large file is hashed while it is sent: if the relay turns out to have it, the rest need not go.

import { get, post, send } from "../lib/api.js";
import { hashFile, hashPiece } from "./hasher.js";

/** Up to here a file is hashed before anything of it is sent; beyond, meanwhile. */
const HASHED_FIRST_MAX_BYTES = 64 * 1024 * 1024;

/** So much must have been sent before its pace is compared with that of hashing. */
const JUDGED_FROM_BYTES = 16 * 1024 * 1024;
/** On their way at once, of one file: with as many files at once, nine chunks of 4 MiB are hashed or sent. */
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
    if (!this.hash && this.size <= HASHED_FIRST_MAX_BYTES) {
      this.#to("hashing");
      this.hash = await hashFile(this.file, { signal, progress: (bytes) => {
        this.hashed = bytes;
        this.onChange(this);
      } });
    }
    this.#to("sending");
    const wanted = await this.#begin(signal);
    if (!wanted) return;
    // Ends with this try, or when the relay turns out to have the file.
    const sending = new AbortController();
    const stop = () => sending.abort();
    signal.addEventListener("abort", stop, { once: true });
    if (this.size > HASHED_FIRST_MAX_BYTES) this.#lookMeanwhile(sending);
    try {
      await this.#sendAll(wanted, sending.signal);
    } catch (error) {
      // Found a moment ago: the answer to that is on its way.
      if (!this.isOver && error.code !== "upload_completed") throw error;
    } finally {
      stop();
      signal.removeEventListener("abort", stop);
    }
    if (!this.isOver) await this.#finish(signal);
  }

  /** Announces the file; gives the chunks that the relay lacks, or nothing if all is done. */
  async #begin(signal) {
    if (this.upload) {
      const state = await get(`/upload/${this.upload.version_id}`, { signal });
      if (state.completed) return this.#finish(signal);
      const received = new Set(state.received);
      this.sent = Math.min(this.size, received.size * this.upload.chunk_size);
      return range(this.upload.num_chunks).filter((index) => !received.has(index));
    }
    const begun = await post("/upload/init", {
      file_name: this.name, file_size: this.size, file_hash: this.hash, path: this.path, space_id: this.space.id, file_id: this.fileId,
      mtime: this.file.lastModified ? new Date(this.file.lastModified).toISOString() : undefined,
    }, { signal });
    if (begun.deduplication) return this.#isThere(begun);
    this.upload = begun;
    return range(begun.num_chunks);
  }

  #isThere(result) {
    this.result = result;
    this.sent = this.size;
    this.#to("same");
  }

  async #finish(signal) {
    this.result = await post(`/upload/complete/${this.upload.version_id}`, { file_hash: this.hash }, { signal });
    this.sent = this.size;
    this.#to("done");
  }

  /** Hashes the file while it is sent, and asks whether the relay has it: then sending stops. Hashing that would come too late to save much is given up. */
  async #lookMeanwhile(sending) {
    const hashing = new AbortController();
    const { signal } = hashing;
    sending.signal.addEventListener("abort", () => hashing.abort(), { once: true });
    const before = this.sent;
    try {
      this.hash ??= await hashFile(this.file, { signal, progress: (hashed) => {
        if (isLate(hashed, this.size, this.sent - before, this.size - before)) hashing.abort();
      } });
      const result = await post(`/upload/complete/${this.upload.version_id}`, { file_hash: this.hash }, { signal });
      this.#isThere(result);
      sending.abort();
    } catch {
      // Not there, or not in time; and whatever else it is, sending meets it too.
    }
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
    const { length, digest } = await hashPiece(this.file, from, to);
    if (length !== to - from) throw Object.assign(new Error("changed"), { name: "NotReadableError", isFile: true });
    const base64 = btoa(String.fromCharCode(...digest.match(/../g).map((pair) => parseInt(pair, 16))));
    // The part itself, not its bytes: the browser reads them where it sends them, and the page need not hold them. Changed meanwhile, they have another digest.
    await send("PUT", `/upload/${id}/chunks/${index}`, { body: this.file.slice(from, to), headers: { "content-type": "application/octet-stream", "content-digest": `sha-256=:${base64}:` }, signal });
    this.sent = Math.min(this.size, this.sent + to - from);
    this.onChange(this);
  }
}

/** Whether hashing, at the pace until now, will not be over in half the time that sending takes; both begun together. Nobody can tell at the beginning. */
export function isLate(hashed, toHash, sent, toSend) {
  return sent >= JUDGED_FROM_BYTES && 2 * (toHash - hashed) * sent > (toSend - sent) * hashed;
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
