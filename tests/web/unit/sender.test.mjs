// What is sent through a public link for uploads, and what is sent again. `node --test tests/web/unit`.

import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";

const { Sender } = await import(new URL("../../../relay/web/share/sender.js", import.meta.url));

const file = (name, text) => new File([text], name, { lastModified: 1 });

/** A relay that takes uploads through a link; `broken(what)` says when it does not answer. */
function linkRelay(broken = () => null) {
  const log = [];
  const hashes = [];
  let uploads = 0;
  const fetch = async (address, { body }) => {
    const what = address.startsWith("init") ? `init ${JSON.parse(body).file_name}` : address.startsWith("chunk") ? address.replace(/.*upload_id=(\w+)&chunk_index=(\d+)/, "chunk $1 $2") : `complete ${JSON.parse(body).upload_id}`;
    const status = broken(what);
    if (status === 0) throw new TypeError("no network");
    log.push(status ? `${what}: ${status}` : what);
    if (what.startsWith("complete")) hashes.push(JSON.parse(body).file_hash);
    if (status) return { ok: false, status, headers: new Headers(), json: async () => ({ detail: "refused" }) };
    const begun = what.startsWith("init") ? { upload_id: `u${(uploads += 1)}`, num_chunks: 3, chunk_size: 1 } : {};
    return { ok: true, json: async () => begun };
  };
  return { log, hashes, sender: new Sender("", { fetch, pause: async () => {} }) };
}

test("after a failure only what is missing is sent through a link", async () => {
  let down = true;
  const { log, hashes, sender } = linkRelay((what) => (down && what === "chunk u2 1" ? 0 : null));
  const [one, two] = [file("one", "111"), file("two", "222")];
  const say = () => {};
  await sender.send(one, say);
  await assert.rejects(sender.send(two, say), /does not answer/);
  assert.deepEqual([sender.has(one), sender.has(two)], [true, false]);
  down = false;
  log.length = 0;
  await sender.send(one, say);
  await sender.send(two, say);
  assert.deepEqual(log, ["chunk u2 1", "chunk u2 2", "complete u2"]);
  assert.deepEqual(hashes, ["111", "222"].map((text) => createHash("sha256").update(text).digest("hex")), "what is sent again is hashed once");
  // The same file again, later and on purpose.
  sender.forget();
  log.length = 0;
  await sender.send(one, say);
  assert.equal(log[0], "init one");
});

/** A file that is `text()` at each look. */
const living = (name, text) => ({ name, size: 3, lastModified: 1, slice: (from, to) => new Blob([text().slice(from, to)]) });

test("a file that changes while it is sent through a link is not completed, and is begun anew", async () => {
  let text = "111";
  const { log, hashes, sender } = linkRelay((what) => {
    // The first piece has gone by then.
    if (what === "chunk u1 1") text = "212";
    return null;
  });
  const one = living("one", () => text);
  await assert.rejects(sender.send(one, () => {}), /changed meanwhile/);
  assert.deepEqual(log, ["init one", "chunk u1 0", "chunk u1 1", "chunk u1 2"]);
  assert.equal(sender.has(one), false);
  log.length = 0;
  await sender.send(one, () => {});
  assert.deepEqual([log[0], log.at(-1)], ["init one", "complete u2"]);
  assert.deepEqual(hashes, [createHash("sha256").update("212").digest("hex")]);
});

test("a file that cannot be read for a while goes on through a link where it was", async () => {
  let gone = false;
  const { log, sender } = linkRelay((what) => {
    if (what === "chunk u1 1") gone = true;
    return null;
  });
  const one = living("one", () => {
    if (gone) throw new DOMException("gone", "NotReadableError");
    return "111";
  });
  await assert.rejects(sender.send(one, () => {}), /cannot be read/);
  gone = false;
  log.length = 0;
  await sender.send(one, () => {});
  assert.deepEqual(log, ["chunk u1 2", "complete u1"]);
});

test("an upload through a link that the relay does not know any more is begun anew", async () => {
  let gone = true;
  const { log, sender } = linkRelay((what) => (gone && what === "complete u1" ? 410 : null));
  const one = file("one", "111");
  await assert.rejects(sender.send(one, () => {}), /refused/);
  gone = false;
  log.length = 0;
  await sender.send(one, () => {});
  assert.deepEqual(log.filter((line) => !line.startsWith("chunk")), ["init one", "complete u2"]);
});
