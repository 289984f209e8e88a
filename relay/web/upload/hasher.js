// The page's side of the hash workers: one for whole files, one for chunks, so that neither waits for the other.

import { scriptUrl } from "../lib/trusted.js";

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
export const hashFile = (file, options) => wholes.ask({ task: "whole", file }, options);

/** What a part of a file is: `{length, digest}`. */
export const hashPiece = (file, from, to) => pieces.ask({ task: "piece", file, from, to });
