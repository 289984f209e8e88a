// Wake-ups: the relay says that something changed, never what; whoever shows it asks again. After a break everything is asked again.

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 30_000;

/**
 * Keeps a connection. `on.change(spaceId or null)`: something changed there, or anything may have; `on.state("live" | "connecting")`.
 * @returns the way to end it
 */
export function connect(userId, on) {
  let socket = null;
  let retryMs = RETRY_MIN_MS;
  let timer = 0;
  let ended = false;

  function open() {
    clearTimeout(timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}/ws/sync/${encodeURIComponent(userId)}`, "ferry.v1");
    socket.addEventListener("message", (event) => heard(event.data));
    socket.addEventListener("close", closed);
  }

  function heard(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message.type === "hello") {
      retryMs = RETRY_MIN_MS;
      on.state("live");
      on.change(null);
    } else if (message.type === "file_change") on.change(message.data.namespace_id);
    else if (message.type === "gap" || message.type === "namespaces") on.change(null);
    else if (message.type === "peers") on.peers?.();
  }

  function closed(event) {
    if (ended) return;
    on.state("connecting");
    if (event.code === 4401) on.loggedOut();
    timer = setTimeout(open, retryMs * (0.5 + Math.random() / 2));
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
  }

  const now = () => {
    if (!ended && (!socket || socket.readyState === WebSocket.CLOSED)) open();
  };
  addEventListener("online", now);
  document.addEventListener("visibilitychange", now);
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    removeEventListener("online", now);
    document.removeEventListener("visibilitychange", now);
    socket?.close();
  };
}

/** Runs `work` soon, once for many calls, never twice at a time; a call during the work runs it again. */
export function coalesced(work, delayMs = 80) {
  let timer = 0;
  let running = false;
  let again = false;
  async function run() {
    timer = 0;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await work();
    } finally {
      running = false;
      if (again) {
        again = false;
        ask();
      }
    }
  }
  function ask() {
    timer ||= setTimeout(run, delayMs);
  }
  return ask;
}
