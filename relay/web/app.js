// The start: language, who is logged in, the frame around all pages, the live connection.
// What is imported here is little, so that it runs early; the rest is on its way meanwhile.

import * as i18n from "./lib/i18n.js";
import { askSpaces, openSession } from "./lib/api.js";
import { Drops } from "./upload/drops.js";

const catalogue = async (code) => (await fetch(new URL(`./i18n/${code}.json`, import.meta.url))).json();

/** Pages beside the files, loaded when they are wanted. */
const PAGES = {
  search: () => import("./pages/search.js"),
  shared: () => import("./pages/shared.js"),
  trash: () => import("./pages/trash.js"),
  conflicts: () => import("./pages/conflicts.js"),
  activity: () => import("./pages/activity.js"),
  storage: () => import("./pages/storage.js"),
  rewind: () => import("./pages/rewind.js"),
  links: () => import("./pages/links.js"),
  devices: () => import("./pages/devices.js"),
  settings: () => import("./pages/settings.js"),
  admin: () => import("./pages/admin.js"),
};

let leaving = false;

function toLogin() {
  // While the person logs out, the end of the login is no news, and another way would cut the answer off that clears the browser.
  if (leaving) return;
  location.assign(`/login?next=${encodeURIComponent(`/${location.hash}`)}`);
}

async function start() {
  applyTheme();
  const drops = new Drops();
  // All that the first view asks for before its list is asked for at once.
  const spaces = askSpaces();
  spaces.catch(() => {});
  const session = openSession(toLogin);
  session.catch(() => {});
  const [{ Shell }, { h, replace }, { startRouter }, { failure }] = await Promise.all([
    import("./shell.js"), import("./lib/dom.js"), import("./lib/router.js"), import("./ui/controls.js"), i18n.start(catalogue),
  ]);
  try {
    await session;
  } catch (error) {
    if (error.status !== 401) replace(document.body, h("main", { class: "alone" }, failure(error, () => location.reload())));
    return;
  }
  const shell = new Shell({ toLogin, leave: () => (leaving = true), pages: PAGES, drops });
  replace(document.body, ...shell.elements());
  try {
    await shell.open(spaces);
  } catch (error) {
    if (error.status !== 401) shell.failed(error, () => location.reload());
    return;
  }
  startRouter((parts) => shell.show(parts));
  keepShell();
}

/** The theme that was chosen on this browser; the system's when none was. */
function applyTheme() {
  const theme = localStorage.getItem("ferry.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

async function keepShell() {
  if (!("serviceWorker" in navigator)) return;
  try {
    const { scriptUrl } = await import("./lib/trusted.js");
    await navigator.serviceWorker.register(scriptUrl("/sw.js"));
    const { active } = await navigator.serviceWorker.ready;
    const shell = performance.getEntriesByType("resource").map((entry) => new URL(entry.name).pathname).filter((path) => path.startsWith("/assets/"));
    active?.postMessage({ shell });
  } catch {
    // Without it the client works all the same; it only does not open without a network.
  }
}

// Without its own parts there are neither words nor ways to draw them.
start().catch(() => document.body.append("Ferry could not be loaded. Please reload this page. – Ferry konnte nicht geladen werden. Bitte die Seite neu laden."));
