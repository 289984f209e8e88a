// Where we are, in the fragment: names of folders never stand in a request line or a log. Back and forward work as in any page.

/** `#/files/ID/a/b` as `["files", "ID", "a", "b"]`. */
export function parse(hash) {
  return hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
}

/** The fragment for these parts. */
export const href = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

/** Calls back with the parts now and at each change. */
export function startRouter(onRoute) {
  const tell = () => onRoute(parse(location.hash));
  addEventListener("hashchange", tell);
  tell();
}

/** Goes somewhere. */
export const go = (...parts) => {
  location.hash = href(...parts);
};
