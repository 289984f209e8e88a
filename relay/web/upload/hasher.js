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

  ask(task, progress = () => {}) {
    if (!this.#worker) this.#start();
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, progress });
      this.#worker.postMessage({ id, ...task });
    });
  }
}

const wholes = new Hasher();
const pieces = new Hasher();

/** The SHA-256 of a file in hexadecimal digits; `progress(bytes)` on the way. */
export const hashFile = (file, progress) => wholes.ask({ task: "whole", file }, progress);

/** A part of a file: `{bytes, digest}`. */
export const readPiece = (file, from, to) => pieces.ask({ task: "piece", file, from, to });
