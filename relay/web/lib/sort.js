// The order of a list: directories first, then by what the person chose, names as people order them.

/**
 * @param entries as the relay lists them
 * @param by "name", "size" or "modified"
 * @param compareNames an Intl.Collator's compare
 */
export function sorted(entries, by, descending, compareNames) {
  const turn = descending ? -1 : 1;
  const times = by === "modified" ? new Map(entries.map((e) => [e, Date.parse(e.modified_at ?? e.updated_at) || 0])) : null;
  const key = {
    name: () => 0,
    size: (a, b) => a.file_size - b.file_size,
    modified: (a, b) => times.get(a) - times.get(b),
  }[by];
  return [...entries].sort((a, b) => {
    const directories = (b.kind === "directory") - (a.kind === "directory");
    return directories || turn * (key(a, b) || compareNames(a.file_name, b.file_name)) || (a.file_name < b.file_name ? -1 : 1);
  });
}
