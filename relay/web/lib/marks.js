// Where the words of a search stand in a name, for whoever reads the hits. The relay decides what is a hit; this only shows why.

/** Text without case and accents, as the relay compares names. */
export const fold = (text) => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "");

/** The name in pieces `[text, isFound]`, in order. */
export function marks(name, query) {
  const words = fold(query).split(/\s+/).filter(Boolean);
  let folded = "";
  const from = [];
  let index = 0;
  for (const sign of name) {
    const part = fold(sign);
    folded += part;
    for (let i = 0; i < part.length; i += 1) from.push(index);
    index += sign.length;
  }
  from.push(name.length);
  const found = new Uint8Array(name.length);
  for (const word of words) {
    for (let at = folded.indexOf(word); at >= 0; at = folded.indexOf(word, at + 1)) found.fill(1, from[at], Math.max(from[at + word.length], from[at] + 1));
  }
  const pieces = [];
  for (let start = 0, end = 0; start < name.length; start = end) {
    while (end < name.length && found[end] === found[start]) end += 1;
    pieces.push([name.slice(start, end), found[start] === 1]);
  }
  return pieces;
}
