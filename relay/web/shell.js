// The frame around all pages: navigation, storage meter, account menu, the place of the page, uploads, messages.

import { askSpaces, csrf, get, user } from "./lib/api.js";
import { h, replace } from "./lib/dom.js";
import { size, t } from "./lib/i18n.js";
import { connect, coalesced } from "./lib/live.js";
import { shown } from "./lib/names.js";
import { go, href } from "./lib/router.js";
import { scope, signal } from "./lib/signal.js";
import { failure, iconButton } from "./ui/controls.js";
import { icon } from "./ui/icons.js";
import { closeMenu, openMenu } from "./ui/menu.js";
import { SearchField } from "./ui/search.js";
import { toast, toasts, toastError } from "./ui/toast.js";
import { FilesPage } from "./files/page.js";
import { UploadQueue } from "./upload/queue.js";
import { uploadPanel } from "./upload/panel.js";

const NAVIGATION = [["files", "files"], ["shared", "shared"], ["conflicts", "conflict"], ["activity", "activity"], ["trash", "trash"], ["links", "link"], ["devices", "devices"]];

/** An id with or without dashes is the same. */
const sameId = (a, b) => String(a).replaceAll("-", "") === String(b).replaceAll("-", "");

/** What every page gets: the spaces, live changes, uploads, ways to say something. */
export class Shell {
  spaces = signal([]);
  usage = signal(null);
  conflicts = signal(0);
  invitations = signal(0);
  connection = signal("connecting");
  search = new SearchField();
  /** The folder that was looked at last: `{space, path}`. */
  place = null;
  /** An entry that its folder selects when it is shown. */
  wanted = null;
  #listeners = new Set();
  #page = null;
  #shownRoute = null;
  #turn = 0;

  constructor({ toLogin, leave, pages, drops }) {
    this.toLogin = toLogin;
    this.leave = leave;
    this.pages = pages;
    this.drops = drops;
    this.uploads = new UploadQueue();
    this.main = h("main", { id: "main", tabindex: "-1" });
    this.refreshUsage = coalesced(async () => this.usage.set(await get("/api/v1/me/usage").catch(() => this.usage.get())), 400);
    this.refreshInvitations = coalesced(() => this.#countInvitations(), 400);
    this.refreshConflicts = coalesced(() => this.#countConflicts(), 800);
    this.main.addEventListener("pointerdown", () => this.#closeSidebar());
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !document.body.classList.contains("sidebar-open")) return;
      this.#closeSidebar();
      document.querySelector(".bar-menu").focus();
    });
  }

  elements() {
    const skip = h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); this.main.focus(); } }, t("nav.skip"));
    return [skip, this.#bar(), this.#sidebar(), this.main, uploadPanel(this.uploads), toasts()];
  }

  /** Learns what there is, from what `askSpaces` gives, and listens. */
  async open(spaces) {
    await this.#loadSpaces(spaces);
    connect(user().user_id, {
      change: (space) => this.#changed(space),
      state: (state) => this.connection.set(state),
      peers: () => this.#tell({ peers: true }),
      loggedOut: this.toLogin,
    });
    this.uploads.onDone(() => this.refreshUsage());
  }

  /** Says in the place of a page that it did not come. */
  failed(error, again) {
    this.drops.to(null, () => toast(t("upload.notHere")));
    replace(this.main, failure(error, again));
  }

  /** Asks again which spaces there are. */
  reloadSpaces() {
    return this.#loadSpaces();
  }

  /** A space by its id; the home when there is none of that id. */
  space(id) {
    const spaces = this.spaces.get();
    return spaces.find((space) => sameId(space.id, id ?? "")) ?? spaces[0];
  }

  /** Calls back when something changed: `{space}` (null: anything may have) or `{peers: true}`. */
  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(what) {
    for (const listener of [...this.#listeners]) listener(what);
  }

  async #changed(space) {
    this.refreshUsage();
    this.refreshConflicts();
    if (space === null) this.refreshInvitations();
    if (space === null || !this.spaces.get().some((known) => sameId(known.id, space))) await this.#loadSpaces().catch(toastError);
    this.#tell({ space });
  }

  async #loadSpaces(asked = askSpaces()) {
    const [spaces, { spaces: shared }] = await asked;
    for (const space of spaces) space.sharedBy = shared.find((other) => sameId(other.space_id, space.id))?.shared_by ?? null;
    const isHome = (space) => space.name === "Ferry" && space.owner === user().user_id;
    this.spaces.set(spaces.sort((a, b) => isHome(b) - isHome(a) || (a.name < b.name ? -1 : 1)));
  }

  async #countInvitations() {
    const { shares } = await get("/api/v1/shares?with=me&state=pending").catch(() => ({ shares: [] }));
    this.invitations.set(shares.length);
  }

  async #countConflicts() {
    let count = 0;
    for (const space of this.spaces.get()) count += (await get(`/api/v1/conflicts?space_id=${space.id}`).catch(() => ({ conflicts: [] }))).conflicts.length;
    this.conflicts.set(count);
  }

  /** Shows the page of a route; one page may answer for many routes and then only moves on. */
  async show(parts) {
    closeMenu({ focus: false });
    this.#closeSidebar();
    this.search.route(parts);
    const name = parts[0] && parts[0] !== "files" ? parts[0] : "files";
    document.querySelectorAll("[data-nav]").forEach((link) => {
      if (link.dataset.nav === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    if (this.#page?.name === name && this.#page.route) {
      this.#page.route(parts.slice(1));
      return;
    }
    const turn = ++this.#turn;
    this.#page?.life.end();
    this.#page = null;
    const life = scope();
    this.drops.to(undefined);
    try {
      const page = name === "files" ? new FilesPage(this, life) : this.pages[name] ? await this.#load(name, life) : null;
      if (turn !== this.#turn) return life.end();
      if (!page) return go("files");
      this.#page = { name, life, route: page.route?.bind(page) };
      // Who types into the search goes on typing.
      const focusIt = this.#shownRoute !== null && document.activeElement !== this.search.input;
      this.#shownRoute = name;
      replace(this.main, page.element);
      page.route?.(parts.slice(1));
      this.drops.to(page.take ? page : null, (refusal) => toast(refusal ?? t("upload.notHere")));
      if (focusIt) (this.main.querySelector("h1") ?? this.main).focus?.();
    } catch (error) {
      life.end();
      if (turn === this.#turn) this.failed(error, () => this.show(parts));
    }
  }

  async #load(name, life) {
    const module = await this.pages[name]();
    return module.create(this, life);
  }

  /** The title of the window. */
  title(text) {
    document.title = text ? `${shown(text)} – Ferry` : "Ferry";
  }

  #bar() {
    const state = h("span", { class: "connection", role: "status" });
    this.connection.watch((now) => replace(state, now === "live" ? "" : t("connection.connecting")));
    return h("header", { class: "bar" },
      iconButton("menu", t("nav.open"), () => this.#toggleSidebar(), { class: "icon-button bar-menu", "aria-expanded": "false", "aria-controls": "sidebar" }),
      h("a", { class: "brand", href: href("files"), "aria-label": "Ferry" }, h("img", { src: new URL("./icon.svg", import.meta.url).href, alt: "", width: 24, height: 24 }), h("span", { class: "brand-name" }, "Ferry")),
      this.search.element,
      state,
      iconButton("user", t("account.menu", { email: user().email }), (event) => this.#accountMenu(event.currentTarget), { "aria-haspopup": "menu", "aria-expanded": "false", class: "icon-button account" }));
  }

  #accountMenu(anchor) {
    openMenu([
      { label: t("nav.settings"), icon: "settings", run: () => go("settings") },
      user().role === "admin" && { label: t("nav.admin"), icon: "admin", run: () => go("admin") },
      null,
      { label: t("account.logout"), icon: "logout", run: () => this.#logout() },
    ].filter((item) => item !== false), anchor, user().email, { title: user().email });
  }

  // A form, so that the relay's answer can also clear what the browser keeps (R70).
  #logout() {
    const form = h("form", { method: "post", action: "/logout", hidden: true }, h("input", { name: "csrf", value: csrf() }));
    document.body.append(form);
    localStorage.removeItem("ferry.view");
    this.leave();
    form.submit();
  }

  #sidebar() {
    const link = (name, image, extra) => h("li", null, h("a", { href: href(name), dataset: { nav: name } }, icon(image), h("span", null, t(`nav.${name}`)), extra));
    const badge = (number) => {
      const count = h("span", { class: "badge", hidden: true });
      number.watch((n) => {
        count.hidden = n === 0;
        count.textContent = n;
      });
      return count;
    };
    const badges = { conflicts: badge(this.conflicts), shared: badge(this.invitations) };
    const spaces = h("ul", { class: "spaces" });
    this.spaces.watch((list) => {
      spaces.hidden = list.length < 2;
      replace(spaces, list.map((space) => h("li", null, h("a", { href: href("files", space.id) }, icon("directory"), h("span", null, shown(space.name), space.sharedBy && h("span", { class: "soft" }, ` · ${shown(space.sharedBy.name ?? space.sharedBy.email)}`))))));
    });
    return h("nav", { class: "sidebar", id: "sidebar", "aria-label": t("nav.label") },
      h("ul", null, NAVIGATION.map(([name, image]) => link(name, image, badges[name]))),
      spaces,
      h("ul", { class: "sidebar-foot" }, link("settings", "settings"), user().role === "admin" && link("admin", "admin")),
      this.#meter());
  }

  #meter() {
    const bar = h("meter", { min: 0, max: 1, "aria-label": t("storage.label"), hidden: true });
    const text = h("p", null);
    this.usage.watch((usage) => {
      if (!usage) return;
      const { storage_used: used, storage_limit: limit } = usage;
      bar.hidden = !limit;
      if (limit) Object.assign(bar, { value: Math.min(1, used / limit), low: 0.8, high: 0.95, optimum: 0 });
      text.textContent = limit ? t("storage.of", { used: size(used), limit: size(limit) }) : t("storage.used", { used: size(used) });
    });
    return h("div", { class: "storage" }, bar, text, h("a", { href: href("storage") }, t("storage.what")));
  }

  #toggleSidebar() {
    const open = document.body.classList.toggle("sidebar-open");
    document.querySelector(".bar-menu").setAttribute("aria-expanded", String(open));
    if (open) document.querySelector(".sidebar a").focus();
  }

  #closeSidebar() {
    document.body.classList.remove("sidebar-open");
    document.querySelector(".bar-menu")?.setAttribute("aria-expanded", "false");
  }
}
