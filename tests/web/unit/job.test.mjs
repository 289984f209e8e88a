// One file on its way up: hashed before it is sent or meanwhile. `node --test tests/web/unit`.

import { test } from "node:test";
import assert from "node:assert/strict";

const web = new URL("../../../relay/web/", import.meta.url);
const MIB = 1024 * 1024;
const CHUNK = 4 * MIB;

/** A worker that hashes at the test's word: `hashing.progress(bytes)`, `hashing.done()`, and `hashing.stopped`. */
const hashing = {};
globalThis.Worker = class extends EventTarget {
  #tell(data) {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  postMessage({ id, task, from, to }) {
    if (task === "piece") queueMicrotask(() => this.#tell({ id, done: { length: to - from, digest: "00".repeat(32) } }));
    if (task === "stop") hashing.stopped = true;
    if (task === "whole") Object.assign(hashing, { stopped: false, progress: (hashed) => this.#tell({ id, hashed }), done: () => this.#tell({ id, done: "ab".repeat(32) }) });
  }
};

/** A relay: `log` of what was asked; `taken(index)` lets a chunk arrive; it has the file if `has`. */
function relay({ has = false } = {}) {
  const it = { log: [], waiting: new Map(), completed: false };
  it.taken = (index) => it.waiting.get(index)();
  const answer = (status, body) => new Response(JSON.stringify(body), { status });
  globalThis.fetch = async (path, { method, body, signal }) => {
    const index = /chunks\/(\d+)$/.exec(path)?.[1];
    if (index !== undefined) {
      return new Promise((resolve, reject) => {
        const stop = () => reject(new DOMException("aborted", "AbortError"));
        signal.addEventListener("abort", stop);
        it.waiting.set(Number(index), () => {
          signal.removeEventListener("abort", stop);
          resolve(answer(200, {}));
        });
      });
    }
    it.log.push(`${method} ${path} ${JSON.parse(body).file_hash?.slice(0, 2) ?? "no hash"}`);
    if (path === "/upload/init") return answer(200, { version_id: "u", chunk_size: CHUNK, num_chunks: it.chunks });
    return has || it.waiting.size === it.chunks ? answer(200, { status: "completed" }) : answer(409, { code: "chunks_missing" });
  };
  return it;
}

const { Job, isLate } = await import(new URL("upload/job.js", web));

function upload(of, size) {
  const job = new Job({ size, lastModified: 0, slice: () => "a part" }, "large", "/", { id: "s" });
  of.chunks = Math.ceil(size / CHUNK);
  return { job, over: job.run() };
}

async function until(look) {
  while (!look()) await new Promise((go) => setTimeout(go, 1));
}

test("a large file is sent while it is hashed, and no further when the relay turns out to have it", async () => {
  const to = relay({ has: true });
  const { job, over } = upload(to, 100 * MIB);
  await until(() => to.waiting.size === 3);
  to.taken(0);
  await until(() => to.waiting.size === 4);
  hashing.progress(50 * MIB);
  assert.equal(job.state, "sending");
  hashing.done();
  await over;
  assert.deepEqual([job.state, job.sent, to.waiting.size], ["same", 100 * MIB, 4]);
  assert.deepEqual(to.log, ["POST /upload/init no hash", "POST /upload/complete/u ab"]);
});

test("hashing that would come too late is given up, and the upload is completed without", async () => {
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  hashing.stopped = null;
  for (let index = 0; index < 25; index += 1) {
    await until(() => to.waiting.has(index));
    to.taken(index);
    if (index === 5) {
      await until(() => job.sent === 6 * CHUNK);
      hashing.progress(CHUNK);
      assert.equal(hashing.stopped, true);
    }
  }
  await over;
  assert.equal(job.state, "done");
  assert.deepEqual(to.log, ["POST /upload/init no hash", "POST /upload/complete/u no hash"]);
});

test("what the relay does not have is sent to its end, and its hash is told", async () => {
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  await until(() => to.waiting.size === 3);
  hashing.done();
  await until(() => to.log.length === 2);
  for (let index = 0; index < 25; index += 1) {
    await until(() => to.waiting.has(index));
    to.taken(index);
  }
  await over;
  assert.equal(job.state, "done");
  assert.deepEqual(to.log, ["POST /upload/init no hash", "POST /upload/complete/u ab", "POST /upload/complete/u ab"]);
});

test("a pause stops hashing too", async () => {
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  await until(() => to.waiting.size === 3);
  job.pause();
  await over;
  assert.deepEqual([job.state, hashing.stopped], ["paused", true]);
});

test("hashing is given up when it will take more than half as long as sending", () => {
  const [size, late] = [1000 * MIB, (hashed, sent) => isLate(hashed * MIB, 1000 * MIB, sent * MIB, size)];
  assert.deepEqual([late(4, 12), late(4, 16), late(30, 16), late(40, 16), late(500, 400)], [false, true, true, false, true]);
});
