// What was chosen, dropped or pasted, as one list: files with the directory that they are in, and directories that are empty. What cannot be taken along
// is in the list too, with the reason, so that it is shown and not just missing: `unreadable` files, directories that were not read to their end
// (`incomplete`), and that there was more than is taken at once (`beyond`).

import { segments } from "../lib/names.js";

/** Most files of one drop: above it something else than a person's files was dropped. */
const FILES_MAX = 100_000;

/** From an `<input type=file>` or the clipboard. */
export function fromInput(list) {
  return [...list].map((file) => {
    const names = segments(file.webkitRelativePath || file.name);
    return { file, name: names.at(-1), directory: names.slice(0, -1) };
  });
}

/** From a drop; its items must be taken before anything is awaited. */
export async function fromDrop(transfer, max = FILES_MAX) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) {
    if (!entry) continue;
    const went = entry instanceof File ? take(found, { file: entry, name: entry.name, directory: [] }, max) : await walk(entry, [], found, max);
    if (!went) {
      found.push({ beyond: max, name: entry.name, directory: [] });
      break;
    }
  }
  return found;
}

/** Puts one more on the list; false if it is full. */
function take(found, one, max) {
  if (found.length >= max) return false;
  found.push(one);
  return true;
}

async function walk(entry, directory, found, max) {
  if (found.length >= max) return false;
  if (entry.isFile) {
    try {
      return take(found, { file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name: entry.name, directory }, max);
    } catch (error) {
      return take(found, { unreadable: error.name, name: entry.name, directory }, max);
    }
  }
  const inside = [...directory, entry.name];
  const reader = entry.createReader();
  let any = false;
  for (;;) {
    let some;
    try {
      some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    } catch (error) {
      return take(found, { incomplete: error.name, name: entry.name, directory }, max);
    }
    if (!some.length) break;
    any = true;
    for (const child of some) if (!(await walk(child, inside, found, max))) return false;
  }
  return any || take(found, { isDirectory: true, name: entry.name, directory }, max);
}
