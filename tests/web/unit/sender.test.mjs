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
