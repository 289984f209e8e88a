// What was chosen, dropped or pasted, as one list: files with the directory that they are in, and directories that are empty.

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
export async function fromDrop(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) {
    if (entry instanceof File) found.push({ file: entry, name: entry.name, directory: [] });
    else if (entry) await walk(entry, [], found);
  }
  return found;
}

async function walk(entry, directory, found) {
  if (found.length >= FILES_MAX) return;
  if (entry.isFile) {
    try {
      found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name: entry.name, directory });
    } catch (error) {
      found.push({ unreadable: error.name, name: entry.name, directory });
    }
    return;
  }
  const inside = [...directory, entry.name];
  const reader = entry.createReader();
  let any = false;
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) break;
    any = true;
    for (const child of some) await walk(child, inside, found);
  }
  if (!any) found.push({ isDirectory: true, name: entry.name, directory });
}
