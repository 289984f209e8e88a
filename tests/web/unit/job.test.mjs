// One file on its way up: hashed before it is sent or meanwhile. `node --test tests/web/unit`.

import { test } from "node:test";
import assert from "node:assert/strict";

const web = new URL("../../../relay/web/", import.meta.url);
const MIB = 1024 * 1024;
const CHUNK = 4 * MIB;

/** A worker that hashes at the test's word: `hashing.progress(bytes)`, `hashing.done()`, and `hashing.stopped`. The file is what `hashing.looks(from)` says, at each look. */
const ZERO = "00".repeat(32);
const hashing = { looks: () => ZERO };
globalThis.Worker = class extends EventTarget {
  #tell(data) {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  postMessage({ id, task, from, to }) {
    if (task === "piece") queueMicrotask(() => this.#tell({ id, done: { length: to - from, digest: hashing.looks(from) } }));
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
    it.log.push(`${method} ${path}${body ? ` ${JSON.parse(body).file_hash?.slice(0, 2) ?? "no hash"}` : ""}`);
    if (method === "DELETE") return answer(200, {});
    if (method === "GET") return answer(200, { received: it.received });
    if (path === "/upload/init") return answer(200, { version_id: "u", chunk_size: CHUNK, num_chunks: it.chunks });
    if (it.refuses && it.waiting.size === it.chunks) return answer(422, { code: it.refuses });
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

/** Lets the chunks arrive, from one to before another. */
async function arrive(to, from, end) {
  for (let index = from; index < end; index += 1) {
    await until(() => to.waiting.has(index));
    to.taken(index);
  }
}

/** Counts the looks at each piece; `other(index, count)` says whether the file is another there by then. */
function looking(other = () => false) {
  const looks = [];
  hashing.looks = (from) => {
    const index = from / CHUNK;
    looks[index] = (looks[index] ?? 0) + 1;
    return other(index, looks[index]) ? "11".repeat(32) : ZERO;
  };
  return looks;
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

test("a file that nothing else binds is looked at again before it is completed", async () => {
  const looks = looking();
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  const states = [];
  job.onChange = () => states.push(job.state);
  await arrive(to, 0, 25);
  await over;
  assert.deepEqual([job.state, job.hashed, states.includes("checking")], ["done", 100 * MIB, true]);
  assert.deepEqual(looks, Array(25).fill(2));
});

test("a file that changes between the two looks is not completed, and trying again means it as it is then", async () => {
  looking((index, count) => index === 3 && count > 1);
  const first = relay();
  const { job, over } = upload(first, 100 * MIB);
  await arrive(first, 0, 25);
  await over;
  assert.deepEqual([job.state, job.error.isFile, job.sent, job.upload], ["failed", true, 0, null]);
  assert.deepEqual(first.log, ["POST /upload/init no hash", "DELETE /upload/u"]);
  const then = relay();
  then.chunks = 25;
  job.resume();
  const again = job.run();
  await arrive(then, 0, 25);
  await again;
  assert.equal(job.state, "done");
  assert.deepEqual(then.log, ["POST /upload/init no hash", "POST /upload/complete/u no hash"]);
});

test("once the whole is hashed, only what was sent before is looked at again, and meanwhile", async () => {
  const looks = looking();
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  await arrive(to, 0, 4);
  await until(() => to.waiting.size === 7);
  hashing.done();
  await until(() => to.log.length === 2);
  assert.deepEqual(looks, Array(7).fill(2));
  await arrive(to, 4, 25);
  await over;
  assert.equal(job.state, "done");
  assert.deepEqual(looks, Array.from({ length: 25 }, (_, index) => (index < 7 ? 2 : 1)));
});

test("a file that was hashed before it is sent is looked at once", async () => {
  const looks = looking();
  const to = relay();
  const { job, over } = upload(to, 8 * MIB);
  hashing.done();
  await arrive(to, 0, 2);
  await over;
  assert.equal(job.state, "done");
  assert.deepEqual(looks, [1, 1]);
  assert.deepEqual(to.log, ["POST /upload/init ab", "POST /upload/complete/u ab"]);
});

test("of a file that is found changed while it is sent, the rest is not sent", async () => {
  looking((index, count) => index === 1 && count > 1);
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  await arrive(to, 0, 4);
  await until(() => to.waiting.size === 7);
  hashing.done();
  await over;
  assert.deepEqual([job.state, job.error.isFile, to.waiting.size], ["failed", true, 7]);
  assert.deepEqual(to.log, ["POST /upload/init no hash", "DELETE /upload/u"]);
});

test("a piece that is another after a pause is not sent", async () => {
  looking((index, count) => index === 2 && count > 1);
  const to = relay();
  const { job, over } = upload(to, 100 * MIB);
  await arrive(to, 0, 2);
  await until(() => job.sent === 2 * CHUNK);
  job.pause();
  await over;
  assert.equal(job.state, "paused");
  const then = relay();
  Object.assign(then, { chunks: 25, received: [0, 1] });
  job.resume();
  const again = job.run();
  await until(() => then.waiting.has(3));
  for (const index of then.waiting.keys()) then.taken(index);
  await again;
  assert.deepEqual([job.state, job.error.isFile, then.waiting.has(2)], ["failed", true, false]);
  assert.deepEqual(then.log, ["GET /upload/u", "DELETE /upload/u"]);
});

test("what the relay finds to be another file than was hashed has changed, too", async () => {
  looking();
  const to = relay();
  to.refuses = "file_hash_mismatch";
  const { job, over } = upload(to, 100 * MIB);
  await until(() => to.waiting.size === 3);
  hashing.done();
  await until(() => to.log.length === 2);
  await arrive(to, 0, 25);
  await over;
  assert.deepEqual([job.state, job.error.isFile, job.hash], ["failed", true, undefined]);
  assert.deepEqual(to.log.at(-1), "DELETE /upload/u");
});

test("hashing is given up when it will take more than half as long as sending", () => {
  const [size, late] = [1000 * MIB, (hashed, sent) => isLate(hashed * MIB, 1000 * MIB, sent * MIB, size)];
  assert.deepEqual([late(4, 12), late(4, 16), late(30, 16), late(40, 16), late(500, 400)], [false, true, true, false, true]);
});
