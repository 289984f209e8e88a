// What becomes of files on their way up: gathered from a drop, and asked about. `node --test tests/web/unit`.

import { test } from "node:test";
import assert from "node:assert/strict";

const web = new URL("../../../relay/web/", import.meta.url);
const load = (name) => import(new URL(name, web));
const { fromDrop } = await load("upload/gather.js");
const { settleNames } = await load("upload/clash.js");

const file = (name, text = name) => new File([text], name, { lastModified: 1 });
const fileEntry = (name) => ({ isFile: true, name, file: (done) => done(file(name)) });
const fails = (_, refuse) => refuse(Object.assign(new Error("no"), { name: "NotReadableError" }));

/** A directory whose entries come in these portions; `null` is an error instead of one. */
function directoryEntry(name, ...portions) {
  const left = [...portions, []];
  return {
    isFile: false,
    name,
    createReader: () => ({
      readEntries: (done, refuse) => {
        const next = left.shift();
        if (next) done(next);
        else fails(null, refuse);
      },
    }),
  };
}

const dropOf = (...entries) => ({ items: entries.map((entry) => ({ kind: "file", webkitGetAsEntry: () => entry })) });
const told = (found) => found.map((one) => `${[...one.directory, one.name].join("/")}${one.unreadable ? " unreadable" : ""}${one.incomplete ? " incomplete" : ""}${one.isDirectory ? " empty" : ""}${one.beyond ? ` beyond ${one.beyond}` : ""}`);

test("a folder that cannot be read to its end says so", async () => {
  const inner = directoryEntry("inner", [fileEntry("a")], null);
  const found = await fromDrop(dropOf(directoryEntry("top", [inner, fileEntry("b")], [{ isFile: true, name: "c", file: fails }]), directoryEntry("none")));
  assert.deepEqual(told(found), ["top/inner/a", "top/inner incomplete", "top/b", "top/c unreadable", "none empty"]);
  assert.deepEqual(told(await fromDrop(dropOf(directoryEntry("closed", null)))), ["closed incomplete"]);
});

test("a drop that is larger than the bound says so, and one that just fits does not", async () => {
  const files = (...names) => names.map(fileEntry);
  const large = () => dropOf(directoryEntry("top", files("a", "b"), files("c")), ...files("d"));
  assert.deepEqual(told(await fromDrop(large(), 2)), ["top/a", "top/b", "top beyond 2"]);
  assert.deepEqual(told(await fromDrop(large(), 3)), ["top/a", "top/b", "top/c", "d beyond 3"]);
  assert.deepEqual(told(await fromDrop(large(), 4)), ["top/a", "top/b", "top/c", "d"]);
});

/** Answers in turn, and keeps what was asked. */
function person(...answers) {
  const asked = [];
  return Object.assign(async ({ name, kind, isFolder, left }) => {
    asked.push(`${name} ${kind} ${isFolder ? "folder" : "file"} ${left}`);
    return answers.shift();
  }, { asked });
}

test("a folder dropped on its namesake is asked about once, with all that is in it", async () => {
  const files = [
    { name: "a", directory: ["photos"] },
    { name: "b", directory: ["photos", "2026"] },
    { name: "empty", directory: ["photos"], isDirectory: true },
    { name: "plan", directory: [] },
    { name: "free", directory: [] },
  ];
  const taken = new Map([["photos", "directory"], ["plan", "file"], ["photos (2)", "file"]]);
  const places = (list) => list.map((one) => [...one.directory, one.name].join("/"));

  const both = person({ what: "both", all: true });
  assert.deepEqual(places(await settleNames(files, taken, both)), ["photos (3)/a", "photos (3)/2026/b", "photos (3)/empty", "plan (2)", "free"]);
  assert.deepEqual(both.asked, ["photos directory folder 1"]);
  const into = person({ what: "replace" }, { what: "skip" });
  assert.deepEqual(places(await settleNames(files, taken, into)), ["photos/a", "photos/2026/b", "photos/empty", "free"]);
  assert.deepEqual(into.asked, ["photos directory folder 1", "plan file file 0"]);
  assert.equal(await settleNames(files, taken, person({ what: "skip" })), undefined, "taken back");
  // A folder never replaces a file, nor a file a folder, whatever was said for all.
  const odd = [{ name: "x", directory: ["plan"] }, { name: "photos", directory: [] }];
  assert.deepEqual(places(await settleNames(odd, taken, person({ what: "replace", all: true }))), ["plan (2)/x", "photos (3)"]);
  // What is missing is never asked about, and goes where its folder goes.
  const missing = [{ name: "photos", directory: [], incomplete: "no" }, { name: "a", directory: ["photos"] }, { name: "plan", directory: [], unreadable: "no" }];
  assert.deepEqual(places(await settleNames(missing, taken, person({ what: "both" }))), ["photos (3)", "photos (3)/a", "plan"]);
});
