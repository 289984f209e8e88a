// Icons drawn by us on a grid of 24, as paths: no font, no file, coloured by the text around them.

import { svg } from "../lib/dom.js";

const STROKES = {
  directory: ["M3 6.5A1.5 1.5 0 0 1 4.5 5h4.6l2 2.5h8.4A1.5 1.5 0 0 1 21 9v9a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z"],
  file: ["M6 3h8l5 5v13H6z", "M14 3v5h5"],
  symlink: ["M6 3h8l5 5v13H6z", "M14 3v5h5", "M9 17c0-3 2-4 5-4m-2-2 2 2-2 2"],
  image: ["M4 5h16v14H4z", "m4 16 5-5 4 4 2-2 5 5", "M15.5 9.5h.01"],
  video: ["M4 5h16v14H4z", "m10 9 5 3-5 3z"],
  audio: ["M9 18V6l10-2v12", "M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0zM19 16a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0z"],
  pdf: ["M6 3h8l5 5v13H6z", "M14 3v5h5", "M9 17.5c2-1 3.5-4 3.5-6.5 0 3 1.5 5 3.5 5.5-2.5 0-5 0-7 1z"],
  archive: ["M4 4h16v5H4z", "M5 9v11h14V9", "M10 13h4"],
  sheet: ["M4 5h16v14H4z", "M4 10h16M4 14.5h16M10 5v14"],
  text: ["M6 3h8l5 5v13H6z", "M14 3v5h5", "M9 12.5h7M9 16h5"],
  search: ["M10.5 17a6.5 6.5 0 1 1 0-13 6.5 6.5 0 0 1 0 13z", "m15.5 15.5 5 5"],
  activity: ["M3 12.5h4l3-8 4.5 15 3-7H21"],
  code: ["m8 8-4 4 4 4M16 8l4 4-4 4M13.5 6l-3 12"],
  files: ["M3 6.5A1.5 1.5 0 0 1 4.5 5h4.6l2 2.5h8.4A1.5 1.5 0 0 1 21 9v9a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z"],
  shared: ["M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 19c.7-3.5 3.3-5 6.5-5s5.8 1.5 6.5 5", "M15.5 4.3a3.5 3.5 0 0 1 0 6.4M18 14.3c2 .7 3.1 2.3 3.5 4.7"],
  share: ["M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 19c.7-3.5 3.3-5 6.5-5 1.6 0 3 .4 4.2 1.2", "M18 13v7M14.5 16.5h7"],
  trash: ["M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5"],
  conflict: ["M12 3.5 2.5 20h19z", "M12 10v4.5M12 17.3h.01"],
  devices: ["M3 5h13v9H3z", "M7 18h5M9.5 14v4", "M18 9h3v10h-5"],
  settings: ["M4 7h9M17 7h3M4 17h3M11 17h9", "M17 7a2 2 0 1 1-4 0 2 2 0 0 1 4 0zM11 17a2 2 0 1 1-4 0 2 2 0 0 1 4 0z"],
  admin: ["M12 3l8 3v6c0 4.5-3.5 7.5-8 9-4.5-1.5-8-4.5-8-9V6z", "m9 12 2 2 4-4"],
  upload: ["M12 16V4m0 0L7 9m5-5 5 5M4 16v4h16v-4"],
  download: ["M12 4v12m0 0 5-5m-5 5-5-5M4 16v4h16v-4"],
  add: ["M12 5v14M5 12h14"],
  minus: ["M5 12h14"],
  fit: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"],
  first: ["M6 5v14", "m18 6-7 6 7 6"],
  last: ["M18 5v14", "m6 6 7 6-7 6"],
  newFolder: ["M3 6.5A1.5 1.5 0 0 1 4.5 5h4.6l2 2.5h8.4A1.5 1.5 0 0 1 21 9v9a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z", "M12 10.5v5M9.5 13h5"],
  more: ["M6 11.2a.8.8 0 1 1 0 1.6.8.8 0 0 1 0-1.6zM12 11.2a.8.8 0 1 1 0 1.6.8.8 0 0 1 0-1.6zM18 11.2a.8.8 0 1 1 0 1.6.8.8 0 0 1 0-1.6z"],
  close: ["M6 6l12 12M18 6 6 18"],
  rename: ["M4 20h4L19 9l-4-4L4 16z", "m13 7 4 4"],
  move: ["M3 6.5A1.5 1.5 0 0 1 4.5 5h4.6l2 2.5h8.4A1.5 1.5 0 0 1 21 9v9a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 18z", "M8.5 13.5h7m-2.5-2.5 2.5 2.5-2.5 2.5"],
  versions: ["M4 12a8 8 0 1 0 2.5-5.8L4 8.5M4 4v4.5h4.5", "M12 8v4.5l3 1.8"],
  list: ["M4 6.5h.01M4 12h.01M4 17.5h.01M8 6.5h12M8 12h12M8 17.5h12"],
  grid: ["M4 4h6.5v6.5H4zM13.5 4H20v6.5h-6.5zM4 13.5h6.5V20H4zM13.5 13.5H20V20h-6.5z"],
  menu: ["M4 7h16M4 12h16M4 17h16"],
  check: ["m5 12.5 4.5 4.5L19 7.5"],
  up: ["m6 15 6-6 6 6"],
  down: ["m6 9 6 6 6-6"],
  next: ["m9 6 6 6-6 6"],
  previous: ["m15 6-6 6 6 6"],
  pause: ["M8 5v14M16 5v14"],
  play: ["m8 5 10 7-10 7z"],
  help: ["M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18z", "M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.4-1 .9-1 1.7M12 16.5h.01"],
  restore: ["M4 12a8 8 0 1 0 2.5-5.8L4 8.5M4 4v4.5h4.5"],
  user: ["M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20c1-4 4-5.5 7.5-5.5s6.5 1.5 7.5 5.5"],
  logout: ["M14 4h5v16h-5M4 12h10m0 0-3.5-3.5M14 12l-3.5 3.5"],
  retry: ["M20 12a8 8 0 1 1-2.5-5.8L20 8.5M20 4v4.5h-4.5"],
  link: ["M10 14a4 4 0 0 0 5.7 0l3.6-3.6a4 4 0 0 0-5.7-5.7L12 6.3", "M14 10a4 4 0 0 0-5.7 0l-3.6 3.6a4 4 0 0 0 5.7 5.7L12 17.7"],
  copy: ["M8 8h12v12H8z", "M16 8V4H4v12h4"],
};

const made = new Map();

/** An icon; of no meaning of its own for who listens to the page. Lists draw many while they are scrolled, so each is made once and then copied. */
export function icon(name, extra = "") {
  const key = `${name} ${extra}`;
  if (!made.has(key)) {
    const paths = (STROKES[name] ?? STROKES.file).map((d) => svg("path", { d }));
    made.set(key, svg("svg", { class: `icon ${extra}`.trim(), viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, paths));
  }
  return made.get(key).cloneNode(true);
}
