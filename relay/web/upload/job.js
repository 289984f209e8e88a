// One file on its way to the relay: hashed, announced, sent in chunks, completed. What is interrupted goes on where it stopped: the relay says which
// chunks it has. A large file is hashed while it is sent: if the relay turns out to have it, the rest need not go.
//
// What arrives is the file as it was at one moment, never a mixture of two states (I5): every piece was seen the same before and after that moment, or the
// upload has failed. The moment is the end of hashing the whole, or, if that was given up, the end of sending; pieces that were not read on both sides of it
// are looked at again.

import { get, post, send } from "../lib/api.js";
import { scriptUrl } from "../lib/trusted.js";

/** Up to here a file is hashed before anything of it is sent; beyond, meanwhile. */
const HASHED_FIRST_MAX_BYTES = 64 * 1024 * 1024;

/** So much must have been sent before its pace is compared with that of hashing. */
const JUDGED_FROM_BYTES = 16 * 1024 * 1024;
/** On their way at once, of one file: with as many files at once, nine chunks of 4 MiB are hashed or sent. */
const CHUNKS_AT_ONCE = 3;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;

/** What the relay says when what it got is not what was announced. */
const MISMATCHES = ["chunk_hash_mismatch", "file_hash_mismatch"];

/** States: waiting, hashing, sending, checking, offline, paused, done, same, failed, cancelled. */
export class Job {
  constructor(file, name, path, space, fileId) {
    Object.assign(this, { file, name, path, space, fileId, state: "waiting", hashed: 0, error: null, result: null });
    this.#forget();
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
    return ["hashing", "sending", "checking", "offline"].includes(this.state);
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
    await sweep(upload);
  }

  /** Nothing of what was sent counts any more. `digests`: what each piece was when it was read; `unsure`: pieces to look at again. */
  #forget() {
    Object.assign(this, { upload: null, sent: 0, digests: [], unsure: new Set() });
  }

  /** What was sent and hashed was another state of the file, or of two; whoever tries again means it as it is then. */
  #fail() {
    const { upload } = this;
    this.#forget();
    Object.assign(this, { hash: undefined, hashed: 0 });
    this.#to("failed", changed());
    sweep(upload);
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
        if (error.isChanged || MISMATCHES.includes(error.code)) return this.#fail();
        if (["upload_expired", "not_found"].includes(error.code)) this.#forget();
        else if (!error.isTemporary) return this.#to("failed", error);
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
    if (this.size > HASHED_FIRST_MAX_BYTES && wanted.length) this.#lookMeanwhile(sending);
    try {
      await inTurn(wanted, CHUNKS_AT_ONCE, (index) => this.#sendChunk(index, sending.signal));
    } catch (error) {
      // That the file has changed was found by looking again.
      if (sending.signal.reason?.isChanged) throw sending.signal.reason;
      // Found a moment ago: the answer to that is on its way.
      if (!this.isOver && error.code !== "upload_completed") throw error;
    } finally {
      stop();
      signal.removeEventListener("abort", stop);
    }
    if (this.isOver) return;
    if (this.unsure.size) {
      this.#to("checking");
      await this.#lookAgain(CHUNKS_AT_ONCE, signal);
    }
    await this.#finish(signal);
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
      // What has been sent until now; this may complete it. One after the other: it is not in a hurry.
      await this.#lookAgain(1, signal);
      const result = await post(`/upload/complete/${this.upload.version_id}`, { file_hash: this.hash }, { signal });
      this.#isThere(result);
      sending.abort();
    } catch (error) {
      // Not there, or not in time; and whatever else it is, sending meets it too. Of a file that has changed the rest need not go.
      if (error.isChanged) sending.abort(error);
    }
  }

  /** Looks at the pieces again that were read before anything bound the file as a whole. */
  async #lookAgain(atOnce, signal) {
    const { unsure } = this;
    await inTurn(unsure, atOnce, async (index) => {
      signal.throwIfAborted();
      await this.#read(index);
      unsure.delete(index);
      this.hashed = Math.max(0, this.size - unsure.size * this.upload.chunk_size);
      this.onChange(this);
    });
  }

  /** Reads and hashes a piece: `{from, to, digest}`. It must be what it was before. */
  async #read(index) {
    const { digests, upload: { chunk_size: chunkSize } } = this;
    const from = index * chunkSize;
    const to = Math.min(this.size, from + chunkSize);
    const { length, digest } = await hashPiece(this.file, from, to);
    digests[index] ??= digest;
    if (length !== to - from || digests[index] !== digest) throw changed();
    return { from, to, digest };
  }

  async #sendChunk(index, signal) {
    const { version_id: id } = this.upload;
    if (!this.hash) this.unsure.add(index);
    const { from, to, digest } = await this.#read(index);
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

/** That a file is not what it was, as whoever shows the job understands it. */
const changed = () => Object.assign(new Error("changed"), { name: "NotReadableError", isFile: true, isChanged: true });

/** What was sent is swept away anyway; this only says it sooner. */
async function sweep(upload) {
  if (upload) await send("DELETE", `/upload/${upload.version_id}`).catch(() => {});
}

/** Does each of these, some at once; ends when none is being done any more. What cannot be read, or has changed, need not be gone on with. */
async function inTurn(all, atOnce, work) {
  const left = [...all];
  const worker = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) await work(one);
  };
  const careful = () => worker().catch((error) => {
    if (error.isFile) left.length = 0;
    throw error;
  });
  const results = await Promise.allSettled(range(Math.min(atOnce, left.length)).map(careful));
  const reasons = results.filter((result) => result.status === "rejected").map((result) => result.reason);
  if (reasons.length) throw reasons.find((reason) => reason.isFile) ?? reasons[0];
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/** The page's side of a hash worker. There is one for whole files and one for chunks, so that neither waits for the other. */
class Hasher {
  #worker = null;
  #waiting = new Map();
  #next = 0;

  #start() {
    this.#worker = new Worker(scriptUrl(new URL("../lib/hash-worker.js", import.meta.url)), { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => {
      const waiting = this.#waiting.get(data.id);
      if (!waiting) return;
      if (data.hashed !== undefined) return waiting.progress(data.hashed);
      this.#waiting.delete(data.id);
      if (data.failed) waiting.reject(Object.assign(new Error(data.failed), { name: data.failed, isFile: true }));
      else waiting.resolve(data.done);
    });
    this.#worker.addEventListener("error", () => {
      for (const { reject } of this.#waiting.values()) reject(new Error("hash worker"));
      this.#waiting.clear();
      this.#worker = null;
    });
  }

  ask(task, { signal, progress = () => {} } = {}) {
    signal?.throwIfAborted();
    if (!this.#worker) this.#start();
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, progress });
      this.#worker.postMessage({ id, ...task });
      signal?.addEventListener("abort", () => {
        if (!this.#waiting.delete(id)) return;
        this.#worker?.postMessage({ id, task: "stop" });
        reject(new DOMException("given up", "AbortError"));
      }, { once: true });
    });
  }
}

const wholes = new Hasher();
const pieces = new Hasher();

/** The SHA-256 of a file in hexadecimal digits; `progress(bytes)` on the way, given up by `signal`. */
const hashFile = (file, options) => wholes.ask({ task: "whole", file }, options);

/** What a part of a file is: `{length, digest}`. */
const hashPiece = (file, from, to) => pieces.ask({ task: "piece", file, from, to });
