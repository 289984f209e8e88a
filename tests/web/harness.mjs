// A relay, a device and a browser for the tests of the web client: real programs on loopback, in a temporary directory, ended whatever happens.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, mkdirSync, openSync, readFileSync, rmSync, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";

const modules = createRequire(join(process.env.FERRY_WEB_MODULES ?? resolve("node_modules"), "..", "from.js"));
const { chromium } = modules("playwright-core");
const AXE = readFileSync(modules.resolve("axe-core/axe.min.js"), "utf8");

const bin = process.env.FERRY_BIN ?? resolve(import.meta.dirname, "../../target/debug");
export const EMAIL = "anna@example.org";
export const PASSWORD = "correct horse battery staple";
const DEADLINE_MS = 60_000;

/** Waits until `look` gives something, or fails with what it was about. */
export async function until(what, look, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  let last;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not in time: ${what}${last ? ` (${last.message})` : ""}`);
    await new Promise((go) => setTimeout(go, 50));
  }
}

/** Waits until `look` gives just this. */
export async function becomes(wanted, look) {
  let last;
  await until(`${JSON.stringify(wanted)}`, async () => isDeepStrictEqual(last = await look(), wanted)).catch((error) => {
    throw new Error(`${error.message}, last ${JSON.stringify(last)}`);
  });
}

/** What `look` gives, once it gives the same twice with some time between. */
export async function rests(look) {
  let before;
  await until("it rests", async () => isDeepStrictEqual(before, before = await look()));
  return before;
}

async function freePort() {
  const server = createServer();
  await new Promise((go) => server.listen(0, "127.0.0.1", go));
  const { port } = server.address();
  await new Promise((go) => server.close(go));
  return port;
}

const knocks = (port) => new Promise((answer) => {
  const socket = connect(port, "127.0.0.1", () => { socket.destroy(); answer(true); });
  socket.on("error", () => answer(false));
});

const TYPES = { js: "text/javascript", css: "text/css", json: "application/json", svg: "image/svg+xml" };

/** With FERRY_WEB_DISK=1 the client's files come from the working tree, so that a change of them needs no build. */
async function fromDisk(route) {
  const { pathname } = new URL(route.request().url());
  const name = pathname === "/" ? "index.html" : /^\/assets\/[0-9a-f]{16}\/(.+)$/.exec(pathname)?.[1];
  const file = name && resolve(import.meta.dirname, "../../relay/web", name);
  if (!file || !existsSync(file)) return route.continue();
  const response = await route.fetch();
  const build = /[0-9a-f]{16}/.exec(name === "index.html" ? await response.text() : pathname)[0];
  const body = readFileSync(file, "utf8").replaceAll("__BUILD__", build);
  // A file that the relay does not know yet.
  if (!response.ok()) return route.fulfill({ status: 200, contentType: TYPES[name.split(".").at(-1)], body });
  return route.fulfill({ response, body });
}

/** Everything that was started, so that it ends with this process. */
const running = new Set();
process.on("exit", () => { for (const child of running) child.kill("SIGKILL"); });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

function start(program, args, options, log) {
  const out = openSync(log, "a");
  const child = spawn(join(bin, program), args, { ...options, stdio: ["ignore", out, out] });
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

async function end(child, signal = "SIGKILL") {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((go) => child.once("exit", go));
  child.kill(signal);
  await gone;
}

export class Harness {
  /** `users: false`: a relay that nobody has set up yet. */
  async open({ users = true } = {}) {
    this.dir = mkdtempSync(join(tmpdir(), "ferry-web-"));
    this.port = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.relayData = join(this.dir, "relay");
    mkdirSync(this.relayData);
    if (users) this.addUser(EMAIL, true);
    await this.startRelay();
    this.browser = await chromium.launch({
      executablePath: process.env.FERRY_CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
  }

  addUser(email, admin = false) {
    const args = ["user", "add", email, "--password-stdin", ...(admin ? ["--admin"] : []), "--data", this.relayData];
    const done = spawnSync(join(bin, "ferry-relay"), args, { input: `${PASSWORD}\n`, encoding: "utf8" });
    if (done.status !== 0) throw new Error(`user add: ${done.stderr}`);
  }

  async startRelay() {
    this.relay = start("ferry-relay", ["serve", "--listen", `127.0.0.1:${this.port}`, "--data", this.relayData], {}, join(this.dir, "relay.log"));
    await until("the relay listens", () => {
      if (this.relay.exitCode !== null) throw new Error(readFileSync(join(this.dir, "relay.log"), "utf8"));
      return knocks(this.port);
    });
  }

  /** What the relay has said until now. */
  relayLog() {
    return readFileSync(join(this.dir, "relay.log"), "utf8");
  }

  /** kill -9. */
  killRelay() {
    return end(this.relay);
  }

  /** A device with one folder that holds what the home on the relay holds. */
  async startDevice() {
    this.home = join(this.dir, "device");
    this.folder = join(this.dir, "folder");
    mkdirSync(this.home);
    mkdirSync(this.folder);
    this.daemon = start("ferry", ["daemon"], { env: this.#deviceEnv(), cwd: this.home }, join(this.dir, "daemon.log"));
    await until("the daemon answers", () => this.ferry(["status", "--json"]).status === 0);
    this.#must(["login", "--relay", this.url, "--email", EMAIL, "--password-stdin", "--name", "LAPTOP"], `${PASSWORD}\n`);
    this.#must(["folder", "add", this.folder, "--remote", "Ferry"]);
    this.settle();
  }

  #deviceEnv() {
    return { ...process.env, FERRY_HOME: this.home, HOME: this.home, NO_COLOR: "1", FERRY_LAN_ENABLED: "false" };
  }

  ferry(args, input = "") {
    return spawnSync(join(bin, "ferry"), args, { env: this.#deviceEnv(), cwd: this.home, input, encoding: "utf8", timeout: 180_000 });
  }

  #must(args, input) {
    const done = this.ferry(args, input);
    if (done.status !== 0) throw new Error(`ferry ${args.join(" ")}: ${done.stdout}${done.stderr}`);
  }

  /** Waits until the device has brought everything there and back. */
  settle() {
    this.#must(["wait", "--timeout", "120"]);
  }

  file(name) {
    return join(this.folder, name);
  }

  exists(name) {
    return existsSync(this.file(name));
  }

  /** A browser of its own, watched: what it complains about, and any request to somebody else, is kept in `page.troubles`. */
  async page({ colorScheme = "light", viewport = { width: 1100, height: 1600 }, email = EMAIL, login = true, locale = "en-US", ...rest } = {}) {
    const context = await this.browser.newContext({ colorScheme, viewport, locale, acceptDownloads: true, ...rest });
    if (process.env.FERRY_WEB_DISK) await context.route(({ pathname }) => pathname === "/" || pathname.startsWith("/assets/"), fromDisk);
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    page.troubles = [];
    page.on("pageerror", (error) => page.troubles.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => { page.troubles.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("console", (message) => /Content Security Policy|Trusted/i.test(message.text()) && page.troubles.push(message.text()));
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(this.url) && !/^(data|blob|about|chrome|chrome-extension):/.test(url)) page.troubles.push(`foreign request: ${url}`);
    });
    if (login) await this.login(page, email);
    return page;
  }

  async login(page, email = EMAIL) {
    await page.goto(`${this.url}/`);
    await page.fill('input[name="email"]', email);
    await page.fill('input[name="password"]', PASSWORD);
    await page.press('input[name="password"]', "Enter");
    await page.waitForSelector("#main > *");
  }

  /** What axe finds wrong on the page, and still does a moment later: what is on its way, a style or a part that is being drawn, is no state of it. */
  async axe(page) {
    // The page's policy forbids scripts of others, this one too; the debugger may do it all the same.
    await page.evaluate(AXE);
    const look = async () => {
      // The browser's own viewer of documents is no page of ours.
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { iframes: false, runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      return violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(" | ")}`);
    };
    let found = await look();
    for (let again = 0; found.length && again < 5; again += 1) {
      await new Promise((go) => setTimeout(go, 1000));
      found = await look();
    }
    return found;
  }

  async close() {
    await this.browser?.close();
    await end(this.daemon, "SIGTERM");
    await end(this.relay, "SIGTERM");
    if (process.env.FERRY_KEEP) console.log(`kept: ${this.dir}`);
    else rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Drops files on the page as a person does, in the list or elsewhere: `{name: content}`. Gives whether each event was taken from the browser. */
export async function drop(page, files, where = ".files") {
  const transfer = await page.evaluateHandle((entries) => {
    const data = new DataTransfer();
    for (const [name, content] of entries) data.items.add(new File([content], name));
    return data;
  }, Object.entries(files));
  return page.locator(where).first().evaluate((element, dataTransfer) => ["dragenter", "dragover", "drop"].map((type) => {
    const event = new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer });
    element.dispatchEvent(event);
    return event.defaultPrevented;
  }), transfer);
}

/** Waits until nothing is wider than the screen. */
export function fits(page, width) {
  return until(`${page.url()} fits ${width} pixels`, async () => {
    const wide = await page.evaluate(() => [document.documentElement.scrollWidth, document.querySelector("main").scrollWidth]);
    if (wide.some((one) => one > width)) throw new Error(`${wide}`);
    return true;
  });
}

/** Opens a directory of the home by its address: in the list above it, which grows with each test, it may be beyond what is drawn. */
export async function openFolder(world, page, name) {
  const space = await page.evaluate(async () => (await (await fetch("/api/v1/spaces")).json()).spaces[0].space_id);
  await page.goto(`${world.url}/#/files/${space}/${encodeURIComponent(name)}`);
  await page.getByRole("heading", { name, exact: true }).waitFor();
}

/** The row of exactly this name in the list. */
export function row(page, name) {
  const exact = new RegExp(`^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`);
  return page.locator(".grid-row", { has: page.locator(".row-name", { hasText: exact }) });
}
