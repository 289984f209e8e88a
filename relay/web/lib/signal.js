// A value that tells when it changes. All state that more than one part of the page reads lives in these.

/** @param value the first value */
export function signal(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    /** Calls back now and at each change; returns the way to stop it. */
    watch(listener) {
      listeners.add(listener);
      listener(value);
      return () => listeners.delete(listener);
    },
  };
}

/** Things to undo when a page is left. */
export function scope() {
  const undo = [];
  return {
    add(stop) {
      undo.push(stop);
      return stop;
    },
    listen(target, type, listener, options) {
      target.addEventListener(type, listener, options);
      undo.push(() => target.removeEventListener(type, listener, options));
    },
    end() {
      for (const stop of undo.splice(0).reverse()) stop();
    },
  };
}
