// The modules of the web client that need no browser. `node --test tests/web/unit`.

import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";

const web = new URL("../../../relay/web/", import.meta.url);
const load = (name) => import(new URL(name, web));
const { Sha256 } = await load("lib/sha256.js");
const names = await load("lib/names.js");
const { sorted } = names;
const { marks } = await load("lib/marks.js");
const i18n = await load("lib/i18n.js");
const router = await load("lib/router.js");
const { signal, scope } = await load("lib/signal.js");
const { allPages, query } = await load("lib/api.js");
const { coalesced } = await load("lib/live.js");

test("the hash in pieces is the hash of the whole", () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 100_003]) {
    const bytes = randomBytes(length);
    const wanted = createHash("sha256").update(bytes).digest("hex");
    for (const step of [1, 7, 63, 64, 65, 4096]) {
      if (step === 1 && length > 1000) continue;
      const hash = new Sha256();
      for (let at = 0; at < length; at += step) hash.update(bytes.subarray(at, at + step));
      assert.equal(hash.hex(), wanted, `${length} in steps of ${step}`);
    }
  }
});

test("what turns text around or hides is shown as a sign", () => {
  assert.equal(names.shown("a\u202egpj.exe"), "a\ufffdgpj.exe");
  assert.equal(names.shown("tab\tnul\0line\n"), "tab\ufffdnul\ufffdline\ufffd");
  assert.equal(names.shown("Grüße 👩‍💻 <b>".replace("\u200d", "")), "Grüße 👩💻 <b>");
});

test("names are judged as the relay judges them", () => {
  for (const bad of ["", "  ", ".", "..", "a/b", "a\0b", "ä".repeat(128)]) assert.ok(names.problemWith(bad), JSON.stringify(bad));
  for (const good of ["a", ".a", "a b", "ä".repeat(127), "<script>"]) assert.equal(names.problemWith(good), null, good);
  assert.equal(names.freeName("a.txt", new Set(["a.txt", "a (2).txt"])), "a (3).txt");
  assert.equal(names.freeName(".env", new Set([".env"])), ".env (2)");
  assert.equal(names.extension("A.TAR.GZ"), "gz");
  assert.equal(names.extension(".bashrc"), "");
  assert.equal(names.parentPath("/a/b"), "/a");
  assert.equal(names.parentPath("/a"), "/");
  assert.equal(names.joinPath("/", "a"), "/a");
  assert.equal(names.kindOf({ kind: "file", file_name: "x.PNG" }), "image");
  assert.equal(names.kindOf({ kind: "directory", file_name: "x.png" }), "directory");
});

test("the pieces of source code are the text, whatever it is", async () => {
  const { pieces, lines } = await load("files/highlight.js");
  const texts = ["", "\n", "let a = 'b", "/* open", "`${x}` // y\n\"\\\"z\"", "<a href=\"x\">&lt;</a><!-- --", "-- x\nSELECT 'a'", "# a\n\"\"\"doc\nstring\"\"\"", "ä€😀 0x1f 1e9", "-a\n+b\n@@ c"];
  for (const language of ["js", "rs", "py", "sql", "html", "css", "lua", "diff", "javascript", "unknown", ""]) {
    for (const text of texts) {
      assert.equal(pieces(text, language).map(([, piece]) => piece).join(""), text, `${language}: ${text}`);
      assert.equal(lines(text, language).map((line) => line.map(([, piece]) => piece).join("")).join("\n"), text, `${language}: ${text}`);
    }
  }
  const kinds = (text, language) => pieces(text, language).filter(([kind]) => kind).map(([kind, piece]) => `${kind} ${piece}`);
  assert.deepEqual(kinds("fn a<'b>() -> char { 'c' } // 1", "rs"), ["keyword fn", "keyword char", "string 'c'", "comment // 1"]);
  assert.deepEqual(kinds("select Name from t", "sql"), ["keyword select", "keyword from"]);
  // A long text of no sense ends soon: no pattern tries again and again.
  for (const part of ["\"\\", "/*", "<a ", "'", "`$", "--[["]) pieces(part.repeat(60_000), "js");
});

test("a part of a text has whole characters, and the parts are the text", async () => {
  const { whole, textOf } = await load("files/text.js");
  const text = "aä€😀\n".repeat(50);
  const bytes = new TextEncoder().encode(text);
  for (const length of [7, 8, 9, 10, 64]) {
    let out = "";
    for (let from = 0; from < bytes.length; from += length) out += new TextDecoder("utf-8", { fatal: true }).decode(whole(bytes.subarray(from, from + length + 3), from === 0, length));
    assert.equal(out, text, `${length}`);
  }
  assert.equal(textOf(new Uint8Array([65, 0, 66])), null);
  assert.equal(textOf(new Uint8Array([0xff, 0xfe, 65, 0])), "A");
  // Bells all over are no text, one in a log is; nor are colours of a terminal in the way.
  assert.equal(textOf(new Uint8Array(1000).fill(7)), null);
  assert.equal(textOf(new TextEncoder().encode(`${"a line\n".repeat(20)}\x07`)).length, 141);
  assert.ok(textOf(new TextEncoder().encode("\x1b[31mred\x1b[0m\r\n\tindented\f")));
});

test("a small picture is asked for by content, and only where there is one", async () => {
  const { thumbnailUrl } = await load("files/thumbnail.js");
  const file = { kind: "file", file_id: "id", file_name: "a.JPG", file_size: 9, file_hash: "0123456789abcdef0123" };
  assert.equal(thumbnailUrl(file), "/api/v1/thumbnails/id?s=256&of=0123456789abcdef");
  assert.equal(thumbnailUrl({ ...file, space_id: "f" }), "/api/v1/thumbnails/id?space_id=f&s=256&of=0123456789abcdef");
  assert.equal(thumbnailUrl({ ...file, version_id: "v" }, 1024), "/api/v1/thumbnails/id?s=1024&v=v&of=0123456789abcdef");
  for (const other of [{ file_name: "a.txt" }, { file_size: 0 }, { kind: "directory" }, { file_size: 33 * 1024 * 1024 }]) assert.equal(thumbnailUrl({ ...file, ...other }), null);
});

test("directories come first and names are ordered as people order them", () => {
  const entry = (file_name, kind = "file", file_size = 0, modified_at = "2026-01-01T00:00:00Z") => ({ file_name, kind, file_size, modified_at });
  const list = [entry("b10"), entry("b2"), entry("Z", "directory"), entry("a", "file", 9, "2026-02-01T00:00:00Z")];
  const order = (by, descending) => sorted(list, by, descending, i18n.collate().compare).map((e) => e.file_name);
  assert.deepEqual(order("name", false), ["Z", "a", "b2", "b10"]);
  assert.deepEqual(order("name", true), ["Z", "b10", "b2", "a"]);
  assert.deepEqual(order("size", true), ["Z", "a", "b10", "b2"]);
  assert.deepEqual(order("modified", true), ["Z", "a", "b10", "b2"]);
});

test("every catalogue has every message, with the same holes", () => {
  const folder = new URL("i18n/", web);
  const catalogues = readdirSync(folder).map((name) => [name, JSON.parse(readFileSync(new URL(name, folder), "utf8"))]);
  const [, english] = catalogues.find(([name]) => name === "en.json");
  assert.ok(catalogues.length >= 2);
  const holes = (text) => [...text.matchAll(/\{\w+\}/g)].map(([hole]) => hole).sort();
  for (const [name, messages] of catalogues) {
    assert.deepEqual(Object.keys(messages).sort(), Object.keys(english).sort(), name);
    for (const [key, text] of Object.entries(messages)) {
      assert.ok(text.trim(), `${name}: ${key}`);
      assert.deepEqual(holes(text), holes(english[key]), `${name}: ${key}`);
    }
  }
});

test("every message that the code asks for is there, and no other", () => {
  const english = JSON.parse(readFileSync(new URL("i18n/en.json", web), "utf8"));
  const sources = ["", "lib/", "ui/", "files/", "share/", "upload/", "pages/"].flatMap((folder) =>
    readdirSync(new URL(folder, web)).filter((name) => name.endsWith(".js")).map((name) => readFileSync(new URL(folder + name, web), "utf8")));
  const code = sources.join("\n");
  const keys = Object.keys(english);
  const literal = [...code.matchAll(/\bt\(\s*"([^"]+)"/g)].map(([, key]) => key);
  for (const key of literal) assert.ok(english[key] ?? english[`${key}.other`], `no message ${key}`);
  const prefixes = [...code.matchAll(/`([a-z]+(?:\.[a-zA-Z]+)*\.)\$\{/g)].map(([, prefix]) => prefix);
  for (const key of keys) {
    const base = key.replace(/\.(one|other)$/, "");
    assert.ok(code.includes(`"${base}"`) || prefixes.some((prefix) => key.startsWith(prefix)), `nobody says ${key}`);
  }
});

test("messages are filled with text and counted by the language", () => {
  i18n.use("en", { "n.one": "{count} file", "n.other": "{count} files", x: "<{name}> {missing}" });
  assert.equal(i18n.t("n", { count: 1 }), "1 file");
  assert.equal(i18n.t("n", { count: 1234 }), "1,234 files");
  assert.equal(i18n.t("x", { name: "{count}" }), "<{count}> {missing}");
  assert.equal(i18n.t("none"), "none");
  assert.equal(i18n.choose(["fr-FR", "de-AT"]), "de");
  assert.equal(i18n.choose(["fr"]), "en");
  assert.equal(i18n.size(1500), "1.5 kB");
  assert.equal(i18n.size(0), "0 bytes");
  assert.equal(i18n.ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:05:00Z")), "5 minutes ago");
  assert.equal(i18n.when("nonsense"), "");
});

test("addresses hold any name", () => {
  const odd = ["files", "id", "a b", "ä#%?", "<x>", "100%"];
  assert.deepEqual(router.parse(router.href(...odd)), odd);
  assert.deepEqual(router.parse("#/files/%zz"), ["files", "%zz"]);
  assert.deepEqual(router.parse(""), []);
  assert.equal(query({ a: 1, b: undefined, c: "x&y" }), "?a=1&c=x%26y");
});

test("signals tell of changes only, and a scope ends what it began", () => {
  const value = signal(1);
  const heard = [];
  const life = scope();
  life.add(value.watch((v) => heard.push(v)));
  value.set(1);
  value.set(2);
  life.end();
  value.set(3);
  assert.deepEqual(heard, [1, 2]);
});

test("all pages of a list are asked for", async () => {
  const pages = { undefined: { files: [1, 2], cursor: "2", has_more: true }, 2: { files: [3], cursor: null, has_more: false } };
  const seen = [];
  assert.deepEqual(await allPages(async (cursor) => pages[cursor], (soFar, last) => seen.push([soFar.length, last])), [1, 2, 3]);
  assert.deepEqual(seen, [[2, false], [3, true]]);
});

test("many calls are one piece of work, and a call during it is not lost", async () => {
  let runs = 0;
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  let finished;
  const second = new Promise((resolve) => (finished = resolve));
  const ask = coalesced(async () => {
    runs += 1;
    if (runs === 1) {
      ask();
      ask();
      await gate;
    } else finished();
  }, 0);
  ask();
  ask();
  setTimeout(open, 0);
  await second;
  assert.equal(runs, 2);
});

test("the words of a search are marked where they stand", () => {
  assert.deepEqual(marks("Plan Zephyr", "zeph plan"), [["Plan", true], [" ", false], ["Zeph", true], ["yr", false]]);
  assert.deepEqual(marks("Übersicht", "ub"), [["Üb", true], ["ersicht", false]]);
  assert.deepEqual(marks("U\u0308ber", "ub"), [["U\u0308b", true], ["er", false]]);
  assert.deepEqual(marks("ﬁle", "i"), [["ﬁ", true], ["le", false]]);
  assert.deepEqual(marks("aaa", "aa"), [["aaa", true]]);
  assert.deepEqual(marks("a.b", ""), [["a.b", false]]);
  assert.deepEqual(marks("", "a"), []);
});
