// Files that are dragged onto the window. Whatever the page does with them, the browser must not open them in its place; what is dropped before it is known
// who takes it waits until then.

import { fromDrop } from "./gather.js";

export class Drops {
  /** Who takes files: `hover(on)`, `refusal` (why not, if so), `take(promise of what gather gives)`. Nobody: null. Not known yet: undefined. */
  #taker;
  #held = [];
  #depth = 0;
  #say = () => {};

  constructor(target = document) {
    target.addEventListener("dragenter", (event) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      this.#over(this.#depth + 1);
    });
    target.addEventListener("dragleave", (event) => isFiles(event) && this.#over(Math.max(0, this.#depth - 1)));
    target.addEventListener("dragover", (event) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = this.#takes(event) ? "copy" : "none";
    });
    target.addEventListener("drop", (event) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      this.#over(0);
      // Below an open dialog nothing is meant.
      if (!isInDialog(event)) this.#give(fromDrop(event.dataTransfer));
    });
  }

  /** From now on this one takes files; `say` tells the person why nobody does. */
  to(taker, say = this.#say) {
    this.#taker?.hover(false);
    this.#taker = taker;
    this.#say = say;
    this.#over(this.#depth);
    if (taker !== undefined) for (const files of this.#held.splice(0)) this.#give(files);
  }

  #over(depth) {
    this.#depth = depth;
    this.#taker?.hover(depth > 0);
  }

  #takes(event) {
    return !isInDialog(event) && (this.#taker === undefined || Boolean(this.#taker && !this.#taker.refusal));
  }

  #give(files) {
    if (this.#taker === undefined) this.#held.push(files);
    else if (!this.#taker || this.#taker.refusal) this.#say(this.#taker?.refusal);
    else this.#taker.take(files);
  }
}

const isFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

const isInDialog = (event) => Boolean(event.target.closest?.("dialog"));
