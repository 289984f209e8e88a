// Colours for source code: words, strings, comments and numbers of the common kinds of language, told apart by one pattern each. No parser: what it does
// not know stays plain.

const WORDS = new Set((
  "abstract and as assert async await auto begin bool boolean break case catch char class const constexpr continue crate def default defer del delete do " +
  "double dyn elif else elsif end enum except export extends extern false final finally float fn for foreach from func function global go goto if impl " +
  "implements import in include inline instanceof int interface is lambda let local long loop match mod module move mut namespace new nil none None nonlocal " +
  "not null nullptr of or package pass private protected pub public raise ref require return self Self short signed sizeof static struct super switch " +
  "template then this throw throws trait True False true try type typedef typeof undefined union unless unsafe unsigned until use using val var virtual void " +
  "volatile when where while with yield"
).split(" "));
const SQL = new Set((
  "add all alter and as asc between by case cast check column constraint create cross database default delete desc distinct drop else end exists foreign " +
  "from full group having if in index inner insert into is join key left like limit not null offset on or order outer primary references replace right " +
  "select set table then transaction trigger union unique update using values view when where with"
).split(" "));

const STRING = String.raw`"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?`;
const NUMBER = String.raw`\b(?:0x[\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;
const pattern = (comment, string = STRING) => new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>${NUMBER})|(?<word>${WORD})`, "gsu");

const SLASHES = String.raw`\/\/[^\n]*|\/\*.*?(?:\*\/|$)`;
const FAMILIES = {
  slashes: { pattern: pattern(SLASHES, `${STRING}|\`(?:\\\\.|[^\`\\\\])*\`?`), words: WORDS },
  // A lifetime is no character.
  rust: { pattern: pattern(SLASHES, String.raw`"(?:\\.|[^"\\])*"?|'(?:\\[^'\n]+|[^'\\\n])'`), words: WORDS },
  css: { pattern: pattern(String.raw`\/\*.*?(?:\*\/|$)`), words: new Set() },
  hashes: { pattern: pattern(String.raw`#[^\n]*`, String.raw`""".*?(?:"""|$)|'''.*?(?:'''|$)|${STRING}`), words: WORDS },
  dashes: { pattern: pattern(String.raw`--[^\n]*|\/\*.*?(?:\*\/|$)`), words: SQL, anyCase: true },
  lua: { pattern: pattern(String.raw`--\[\[.*?(?:\]\]|$)|--[^\n]*`), words: WORDS },
  tags: { pattern: /(?<comment><!--.*?(?:-->|$))|(?<string>"[^"<>]*"|'[^'<>]*')|(?<word><[/!?]?[A-Za-z][\w:.-]*|[/?]?>)/gsu, words: null },
  diff: { pattern: /(?<removed>^-[^\n]*)|(?<added>^\+[^\n]*)|(?<comment>^@@[^\n]*)/gmu, words: null },
};
const OF_ENDING = {
  slashes: "js mjs cjs ts jsx tsx c h cc cpp hpp cs go java kt swift php scala dart proto json zig",
  rust: "rs",
  css: "css scss less",
  hashes: "py rb sh bash zsh yaml yml toml ini conf mk cmake pl r service lock dockerfile makefile",
  dashes: "sql",
  lua: "lua hs",
  tags: "html htm xml svg vue",
  diff: "diff patch",
};
const FAMILY_OF = new Map(Object.entries(OF_ENDING).flatMap(([family, endings]) => endings.split(" ").map((ending) => [ending, family])));
const NAMED = { rust: "rs", javascript: "js", typescript: "ts", python: "py", shell: "sh", console: "sh", ruby: "rb", golang: "go", "c++": "cpp", csharp: "cs", kotlin: "kt" };
/** More pieces would make the page slow; such a text stays plain. */
const PIECES_MAX = 30_000;

/** Whether a language, by the ending of a file's name or by its own name, has colours. */
const familyOf = (language) => FAMILIES[FAMILY_OF.get(NAMED[language] ?? language)] ?? null;

/**
 * Cuts a text into pieces `[kind, text]`; together they are the text. Kinds: "", comment, string, number, keyword, added, removed.
 * @param language the ending of a file's name, or a language's name
 */
export function pieces(text, language) {
  const family = familyOf(String(language).toLowerCase());
  if (!family) return [["", text]];
  const out = [];
  let plainFrom = 0;
  for (const match of text.matchAll(family.pattern)) {
    const [kind, word] = Object.entries(match.groups).find(([, value]) => value !== undefined);
    const isWord = kind === "word";
    if (word === "" || isWord && family.words && !family.words.has(family.anyCase ? word.toLowerCase() : word)) continue;
    if (match.index > plainFrom) out.push(["", text.slice(plainFrom, match.index)]);
    out.push([isWord ? "keyword" : kind, word]);
    plainFrom = match.index + word.length;
    if (out.length > PIECES_MAX) return [["", text]];
  }
  if (plainFrom < text.length) out.push(["", text.slice(plainFrom)]);
  return out;
}

/** The pieces of each line. */
export function lines(text, language) {
  const out = [[]];
  for (const [kind, piece] of pieces(text, language)) {
    piece.split("\n").forEach((part, i) => {
      if (i) out.push([]);
      if (part) out.at(-1).push([kind, part]);
    });
  }
  return out;
}
