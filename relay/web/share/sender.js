// What the page of a link for uploads sends, and what it remembers of it: a file that has arrived is not sent again, and one that broke off goes on where
// it was. Needs no page, so that it can be tested alone.

import { Sha256 } from "../lib/sha256.js";

/** How often a piece is sent again. */
const TRIES = 5;

/** As if the relay had refused a file that has changed: the next time it is begun anew, as it is then. */
const CHANGED = 409;

/** What the relay refused; `status` 0: it was not heard, or the file not read, and the upload goes on the next time. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** What a piece is. A page over plain HTTP has no crypto.subtle. */
async function digestOf(bytes) {
  const { subtle } = globalThis.crypto ?? {};
  return subtle ? hex(await subtle.digest("SHA-256", bytes)) : new Sha256().update(new Uint8Array(bytes)).hex();
}

/** Takes the next piece into the hash of the whole; one that is sent again was taken in the first time. */
async function hashOnce(state, bytes) {
  if (state.digests.length !== state.next) return;
  const digest = await digestOf(bytes);
  state.hash.update(new Uint8Array(bytes));
  state.digests.push(digest);
}

/** What is said of a file while it is sent, where the page gives no words of its own. */
const WORDS = {
  sending: "sending {percent} %",
  sent: "sent",
  unreachable: "The relay does not answer. Try again.",
  checking: "checking {percent} %",
  changed: "The file cannot be read, or it was changed meanwhile.",
  refused: "The relay refused this file.",
  busy: "The relay is busy. Try again.",
};

const keyOf = (file) => JSON.stringify([file.name, file.size, file.lastModified]);

export class Sender {
  #base;
  #fetch;
  #pause;
  #words;
  /** By file: `{upload, next}` of one that was begun, `{sent: true}` of one that has arrived. */
  #known = new Map();

  constructor(base, { words = WORDS, fetch = (...of) => globalThis.fetch(...of), pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms)) } = {}) {
    this.#base = base;
    this.#fetch = fetch;
    this.#pause = pause;
    this.#words = { ...WORDS, ...words };
  }

  /** Whether this file has arrived. */
  has(file) {
    return Boolean(this.#known.get(keyOf(file))?.sent);
  }

  /** Everything that was meant has arrived: what is chosen from now on is meant anew. */
  forget() {
    this.#known.clear();
  }

  /** Sends a file, or the rest of it. */
  async send(file, say) {
    if (this.has(file)) return;
    let state = this.#known.get(keyOf(file));
    if (!state) {
      const upload = await this.#ask("init", JSON.stringify({ file_name: file.name, file_size: file.size }), "application/json");
      state = { upload, next: 0, digests: [], hash: new Sha256(), seen: 0 };
      this.#known.set(keyOf(file), state);
    }
    const { upload } = state;
    try {
      for (; state.next < upload.num_chunks; state.next += 1) {
        say(this.#words.sending.replace("{percent}", () => Math.floor((state.next / upload.num_chunks) * 100)));
        const bytes = await this.#read(file, upload, state.next);
        const address = `chunk?upload_id=${encodeURIComponent(upload.upload_id)}&chunk_index=${state.next}`;
        // Hashed while it is on its way.
        const both = await Promise.allSettled([this.#ask(address, bytes, "application/octet-stream"), hashOnce(state, bytes)]);
        const failed = both.find((one) => one.status === "rejected");
        if (failed) throw failed.reason;
      }
      state.whole ??= state.hash.hex();
      // What arrived is the file as it was when the last piece had gone, or nothing: a piece that is another now may make a mixture of two states.
      for (; state.seen < upload.num_chunks; state.seen += 1) {
        say(this.#words.checking.replace("{percent}", () => Math.floor((state.seen / upload.num_chunks) * 100)));
        if (await digestOf(await this.#read(file, upload, state.seen)) !== state.digests[state.seen]) throw new Refused(CHANGED, this.#words.changed);
      }
      await this.#ask("complete", JSON.stringify({ upload_id: upload.upload_id, file_hash: state.whole }), "application/json");
    } catch (error) {
      // An upload that the relay does not take any more is begun anew the next time; one that was only not heard goes on.
      if (error.status) this.#known.delete(keyOf(file));
      throw error;
    }
    this.#known.set(keyOf(file), { sent: true });
    say(this.#words.sent);
  }

  /** What cannot be read now may be again, and then goes on where it was. */
  async #read(file, { chunk_size: size }, index) {
    try {
      return await file.slice(index * size, (index + 1) * size).arrayBuffer();
    } catch {
      throw new Refused(0, this.#words.changed);
    }
  }

  async #ask(path, body, type) {
    for (let tried = 1; ; tried += 1) {
      let answer = null;
      try {
        answer = await this.#fetch(this.#base + path, { method: "POST", headers: { "Content-Type": type }, body });
      } catch {
        if (tried === TRIES) throw new Refused(0, this.#words.unreachable);
      }
      if (answer && answer.ok) return answer.json();
      if (answer && ![429, 502, 503, 504].includes(answer.status)) {
        const problem = await answer.json().catch(() => ({}));
        throw new Refused(answer.status, problem.detail || this.#words.refused);
      }
      if (tried === TRIES) throw new Refused(0, this.#words.busy);
      await this.#pause(Math.min(30, Number(answer?.headers.get("Retry-After")) || tried) * 1000);
    }
  }
}
