// What the page of a link for uploads sends, and what it remembers of it: a file that has arrived is not sent again, and one that broke off goes on where
// it was. Needs no page, so that it can be tested alone.

import { Sha256 } from "../lib/sha256.js";

/** How often a piece is sent again. */
const TRIES = 5;

/** What the relay refused; `status` 0: it did not answer. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Takes the next piece into the hash of the whole; one that is sent again was taken in the first time. */
async function hashOnce(state, piece) {
  if (state.hashed !== state.next) return;
  state.hash.update(new Uint8Array(await piece.arrayBuffer()));
  state.hashed += 1;
}

/** What is said of a file while it is sent, where the page gives no words of its own. */
const WORDS = {
  sending: "sending {percent} %",
  sent: "sent",
  unreachable: "The relay does not answer. Try again.",
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
    this.#words = words;
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
      state = { upload, next: 0, hashed: 0, hash: new Sha256() };
      this.#known.set(keyOf(file), state);
    }
    const { upload } = state;
    try {
      for (; state.next < upload.num_chunks; state.next += 1) {
        say(this.#words.sending.replace("{percent}", () => Math.floor((state.next / upload.num_chunks) * 100)));
        const piece = file.slice(state.next * upload.chunk_size, (state.next + 1) * upload.chunk_size);
        const address = `chunk?upload_id=${encodeURIComponent(upload.upload_id)}&chunk_index=${state.next}`;
        // Hashed while it is on its way.
        const both = await Promise.allSettled([this.#ask(address, piece, "application/octet-stream"), hashOnce(state, piece)]);
        const failed = both.find((one) => one.status === "rejected");
        if (failed) throw failed.reason;
      }
      state.whole ??= state.hash.hex();
      await this.#ask("complete", JSON.stringify({ upload_id: upload.upload_id, file_hash: state.whole }), "application/json");
    } catch (error) {
      // An upload that the relay does not take any more is begun anew the next time; one that was only not heard goes on.
      if (error.status) this.#known.delete(keyOf(file));
      throw error;
    }
    this.#known.set(keyOf(file), { sent: true });
    say(this.#words.sent);
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
