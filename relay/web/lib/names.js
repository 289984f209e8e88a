// Names as a person reads them: what turns the direction of text around, or cannot be seen, is shown as a sign of its own (R46, B40).

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A name or path for display. Never used to address anything. */
export const shown = (name) => String(name).replace(UNSEEN, "\ufffd");

/** The extension in lower case, without its dot. */
export function extension(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot + 1).toLowerCase() : "";
}

/** Where the extension begins, so that a rename selects what is before it. */
export function stemEnd(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? dot : name.length;
}

/** The path of something in a directory; both absolute. */
export const joinPath = (directory, name) => (directory === "/" ? `/${name}` : `${directory}/${name}`);

/** The directory of a path. */
export function parentPath(path) {
  const cut = path.lastIndexOf("/");
  return cut <= 0 ? "/" : path.slice(0, cut);
}

/** The names of a path. */
export const segments = (path) => path.split("/").filter(Boolean);

/** A name that is not in `taken`: `a (2).txt`. */
export function freeName(name, taken) {
  if (!taken.has(name)) return name;
  const cut = stemEnd(name);
  for (let n = 2; ; n += 1) {
    const next = `${name.slice(0, cut)} (${n})${name.slice(cut)}`;
    if (!taken.has(next)) return next;
  }
}

/** Why a name cannot be one; nothing if it can. The relay has the last word. */
export function problemWith(name) {
  if (!name.trim()) return "name.empty";
  if (name === "." || name === "..") return "name.dots";
  if (name.includes("/") || name.includes("\0")) return "name.slash";
  if (new TextEncoder().encode(name).length > 255) return "name.long";
  return null;
}

const KINDS = {
  image: ["png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "ico", "svg"],
  video: ["mp4", "webm", "mov", "m4v", "ogv", "mkv"],
  audio: ["mp3", "ogg", "oga", "wav", "flac", "m4a", "aac", "opus"],
  pdf: ["pdf"],
  archive: ["zip", "tar", "gz", "xz", "zst", "7z", "bz2", "rar", "deb"],
  sheet: ["csv", "tsv", "xls", "xlsx", "ods"],
  text: ["txt", "md", "log", "rst", "doc", "docx", "odt", "rtf", "tex"],
  code: [
    "js", "mjs", "ts", "jsx", "tsx", "rs", "py", "c", "h", "cc", "cpp", "hpp", "go", "java", "kt", "rb", "php", "sh", "bash", "zsh", "css", "html", "htm",
    "xml", "json", "yaml", "yml", "toml", "ini", "conf", "sql", "lua", "swift", "vue", "diff", "patch", "lock", "service", "mk", "cmake", "proto",
  ],
};
const KIND_OF = new Map(Object.entries(KINDS).flatMap(([kind, list]) => list.map((ext) => [ext, kind])));

/** What an entry looks like: directory, symlink, image, video, audio, pdf, archive, sheet, text, code or file. */
export function kindOf(entry) {
  if (entry.kind !== "file") return entry.kind;
  return KIND_OF.get(extension(entry.file_name)) ?? "file";
}

/**
 * The order of a list: directories first, then by what the person chose, names as people order them.
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
