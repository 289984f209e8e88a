// Every page as a picture, in each language with a scheme of its own, wide and narrow: for people to look at. `tests/web/run --shots DIRECTORY`.
//
//   FERRY_SHOTS_LOOKS="en-US light, de-DE dark"   what is drawn
//   FERRY_SHOTS_SIZES="1280x800 320x640"
//   FERRY_SHOTS_ONLY=WORD                         only parts whose name holds WORD: lists, previews, history, selection, sharing, dialogs, uploads, empty, troubles, guests

import { createHmac, randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { drop, EMAIL, Harness, PASSWORD, until } from "./harness.mjs";
import { furnish } from "./shots-world.mjs";

const [, , directory] = process.argv;
const LOOKS = (process.env.FERRY_SHOTS_LOOKS ?? "en-US light, de-DE dark").split(",").map((look) => look.trim().split(" "));
const SIZES = (process.env.FERRY_SHOTS_SIZES ?? "1280x800 320x640").split(" ").map((size) => size.split("x").map(Number));
const ONLY = process.env.FERRY_SHOTS_ONLY ?? "";
const LISTS = "files shared trash conflicts links devices activity search storage rewind settings admin".split(" ");

/** One look at one size: pages of who is logged in, and of who is not. */
class Camera {
  constructor(world, links, locale, colorScheme, [width, height]) {
    Object.assign(this, { world, links, locale, colorScheme, width, height, failures: [] });
  }

  open(options = {}) {
    return this.world.page({ colorScheme: this.colorScheme, locale: this.locale, viewport: { width: this.width, height: this.height }, ...options });
  }

  /** `part` in a browser of its own; the others go on when it fails. */
  async part(name, options, part) {
    if (!name.includes(ONLY)) return;
    const page = await this.open(options);
    page.setDefaultTimeout(8000);
    const shoot = async (what, { full = false } = {}) => {
      await page.waitForTimeout(350);
      await page.screenshot({ path: join(directory, `${what}-${this.locale.slice(0, 2)}-${this.colorScheme}-${this.width}.png`), fullPage: full });
    };
    const go = async (...path) => {
      await page.goto(`${this.world.url}/#/${path.map(encodeURIComponent).join("/")}`);
      // Another fragment is no navigation: what it asks for is asked for a moment later.
      await page.waitForTimeout(300);
      await page.waitForLoadState("networkidle");
    };
    try {
      await part({ page, shoot, go });
    } catch (error) {
      await shoot(`FAILED-${name}`).catch(() => {});
      this.failures.push(`${name} ${this.locale} ${this.colorScheme} ${this.width}: ${error.message.split("\n")[0]}`);
    }
    await page.context().close();
  }
}

/** Clicks what stands `n`th among the tools above a list, from the end for less than 0. */
const tool = (page, n) => page.locator(".tools button").nth(n).click();
const escape = (page) => page.keyboard.press("Escape");
const select = (page, name) => page.locator(".grid-row", { has: page.getByText(name, { exact: true }) }).locator(".row-check").click();

/** Holds a file over the window. */
const hold = (page) => page.evaluate(() => {
  const data = new DataTransfer();
  data.items.add(new File(["x"], "x"));
  for (const type of ["dragenter", "dragover"]) document.querySelector(".files").dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data }));
});

/** Shows the whole of a page that scrolls inside the frame. */
async function grow(page, width) {
  const height = await page.evaluate(() => Math.min(4000, (document.querySelector("main")?.scrollHeight ?? 0) + 60));
  await page.setViewportSize({ width, height: Math.max(height, 640) });
}

async function lists(camera) {
  await camera.part("lists", {}, async ({ page, shoot, go }) => {
    await shoot("start");
    for (const name of LISTS) {
      await page.setViewportSize({ width: camera.width, height: camera.height });
      await go(name);
      if (name === "search") await page.locator("input[type=search]").fill("holiday");
      if (name === "search") await page.locator(".result").first().waitFor();
      if (name !== "files") await grow(page, camera.width);
      await shoot(name);
    }
    await page.setViewportSize({ width: camera.width, height: camera.height });
    await go("files");
    await page.locator(".account").click();
    await shoot("account-menu");
    await escape(page);
    if (camera.width < 760) {
      await page.locator(".bar-menu").click();
      await shoot("sidebar");
    }
  });
}

async function previews(camera) {
  await camera.part("previews", {}, async ({ page, shoot, go }) => {
    await go("files");
    await page.locator(".row-name", { hasText: "Pictures" }).click();
    await page.waitForLoadState("networkidle");
    await shoot("pictures-list");
    await tool(page, -2);
    await shoot("pictures-tiles");
    await tool(page, -2);
    await page.locator(".row-name", { hasText: "holiday 1" }).click();
    await shoot("preview-picture");
    await escape(page);
    await go("files");
    await page.locator(".row-name", { hasText: "Notes" }).click();
    for (const name of ["readme.md", "main.rs", "long.log", "tone.wav", "paper.pdf", "data.bin"]) {
      await page.locator(".row-name", { hasText: name }).click();
      await shoot(`preview-${name}`);
      await escape(page);
    }
  });
}

async function history(camera) {
  await camera.part("history", {}, async ({ page, shoot, go }) => {
    await go("files");
    await select(page, "story.txt");
    await tool(page, -1);
    await page.locator("[role=menuitem]", { hasText: /^Version/ }).click();
    await page.locator("[data-version]").first().waitFor();
    await shoot("versions");
    await page.locator("[data-version]").first().locator("button").nth(1).click();
    await shoot("versions-next");
    await escape(page);
    await escape(page);
    await go("rewind");
    await page.locator("form .primary").click();
    await grow(page, camera.width);
    await shoot("rewind-asked");
    await page.setViewportSize({ width: camera.width, height: camera.height });
    await go("settings");
    await page.locator(".card", { hasText: /Old versions|Ältere|Alte/ }).locator(".button").first().click();
    await shoot("retention-dialog");
  });
}

async function selection(camera) {
  await camera.part("selection", {}, async ({ page, shoot, go }) => {
    await go("files");
    await select(page, "Notes");
    await select(page, "plan.txt");
    await shoot("selection");
    await tool(page, -1);
    await shoot("menu-many");
    await escape(page);
    await select(page, "plan.txt");
    await tool(page, -1);
    await shoot("menu-one");
    await escape(page);
    await page.locator(".grid").focus();
    await page.keyboard.press("F2");
    await shoot("rename");
    await escape(page);
    await tool(page, -1);
    await page.locator("[role=menuitem]", { hasText: /^(Move|Verschieben)/ }).first().click();
    await shoot("move");
    await escape(page);
    await go("files");
    await page.locator(".tools .icon-button").first().click();
    await page.locator(".tools .primary").click();
    await shoot("menu-new");
    await page.locator("[role=menuitem]").first().click();
    await page.locator("dialog input").fill("a/b");
    await page.keyboard.press("Enter");
    await shoot("new-folder-refused");
    await escape(page);
    await tool(page, -1);
    await shoot("help");
  });
}

async function sharing(camera) {
  await camera.part("sharing", {}, async ({ page, shoot, go }) => {
    await go("files");
    await page.locator(".tools .icon-button").first().click();
    await page.locator("dialog[open] li").first().waitFor();
    await shoot("share-folder");
    await page.locator("dialog").evaluate((element) => element.querySelector(".dialog-body").scrollTo(0, 9999));
    await shoot("share-folder-end");
    await escape(page);
    await select(page, "Notes");
    await tool(page, -1);
    await page.locator("[role=menuitem]").nth(1).click();
    await shoot("share-directory");
    await escape(page);
    await go("links");
    await page.locator(".link-item button").nth(1).click();
    await shoot("link-qr");
    await escape(page);
    await page.locator(".link-item").last().locator("button").nth(-2).click();
    await shoot("link-change");
    await escape(page);
    await page.locator(".link-item button").last().click();
    await shoot("confirm");
  });
}

async function dialogs(camera) {
  await camera.part("dialogs", {}, async ({ page, shoot, go }) => {
    await go("devices");
    await page.locator(".page-actions .primary").click();
    await shoot("device-link");
    await escape(page);
    await page.locator(".rows-actions button").first().click();
    await shoot("device-rename");
    await escape(page);
    await page.locator(".rows-actions button").nth(1).click();
    await shoot("device-revoke");
    await escape(page);
    await go("admin");
    await page.locator(".people-table .icon-button").last().click();
    await shoot("admin-menu");
    await page.locator("[role=menuitem]").first().click();
    await page.locator("dialog input").fill("many");
    await page.keyboard.press("Enter");
    await shoot("admin-quota-refused");
    await escape(page);
    await page.locator(".card-actions .button").first().click();
    await shoot("admin-add");
    await escape(page);
    await page.locator(".card-actions .button").nth(1).click();
    await shoot("admin-invite");
    await escape(page);
    await go("settings");
    await page.locator(".card").nth(1).locator(".button").first().click();
    await page.locator("dialog input").first().fill("wrong words");
    await page.locator("dialog input").last().fill("other words, long enough");
    await page.keyboard.press("Enter");
    await page.locator("dialog .field-error:not([hidden]), .toast.error").first().waitFor();
    await shoot("password-refused");
    await escape(page);
    await page.locator(".card").nth(4).locator(".card-actions .button").click();
    await shoot("app-password");
    await page.locator("dialog input").first().fill(`sync ${camera.locale} ${camera.width}`);
    await page.keyboard.press("Enter");
    await page.locator("dialog code, dialog pre, dialog .secret").first().waitFor();
    await shoot("app-password-made");
  });
}

async function uploads(camera) {
  await camera.part("uploads", {}, async ({ page, shoot, go }) => {
    const mark = `${camera.locale} ${camera.colorScheme} ${camera.width}`;
    await go("files");
    await drop(page, { "plan.txt": `again ${mark}`, "story.txt": `again ${mark}` });
    await page.locator("dialog[open]").waitFor();
    await shoot("clash");
    await escape(page);
    await hold(page);
    await shoot("drop");
    await go("files");
    await page.reload();
    await go("files");
    await page.locator(".row-name", { hasText: "Inbox" }).click();
    await page.waitForLoadState("networkidle");
    await page.route("**/chunks/*", (route) => (/\/chunks\/0$/.test(route.request().url()) ? route.continue() : undefined));
    await drop(page, { [`large ${mark}.bin`]: mark.repeat(500_000), [`small ${mark}.txt`]: mark });
    await page.waitForSelector(".uploads [data-state=done]");
    await page.locator(".uploads [data-state=sending]").getByRole("button").last().waitFor();
    await shoot("uploads");
    await page.locator(".uploads [data-state=sending]").getByRole("button").last().click();
    await drop(page, { "refused\u0000name.txt": "a name that no disk takes" });
    await page.waitForSelector(".uploads [data-state=failed]", { timeout: 3000 }).catch(() => {});
    await shoot("uploads-over");
  });
}

async function empty(camera) {
  await camera.part("empty", { email: "carla@example.net" }, async ({ page, shoot, go }) => {
    for (const name of LISTS.filter((one) => one !== "admin")) {
      await go(name);
      if (name === "search") await page.locator("input[type=search]").fill("nothing of that name");
      if (name === "search") await page.waitForLoadState("networkidle");
      await shoot(`empty-${name}`);
    }
    await page.locator("input[type=search]").fill("");
    await go("search");
    await shoot("empty-search-unasked");
  });
  await camera.part("empty", { email: "bob@example.com" }, async ({ page, shoot, go }) => {
    await go("shared");
    await shoot("shared-with-bob");
    const accept = page.locator(".rows-actions .primary");
    if (await accept.count()) await accept.first().click();
    await page.locator(".rows a").first().click();
    await page.locator(".grid-row").first().waitFor();
    await hold(page);
    await shoot("drop-refused");
  });
}

async function troubles(camera) {
  const refuse = (route) => route.fulfill({ status: 503, contentType: "application/problem+json", body: JSON.stringify({ code: "unavailable", detail: "The database does not answer." }) });
  await camera.part("troubles", {}, async ({ page, shoot, go }) => {
    await page.route(/\/metadata\/files|\/api\/v1\/(trash|devices|links|conflicts|activity|admin|shares|search|me\/usage)/, refuse);
    for (const name of ["trash", "devices", "links", "conflicts", "activity", "shared", "storage", "admin", "files"]) {
      await go(name);
      await shoot(`trouble-${name}`);
    }
    await page.unroute(/\/metadata\/files|\/api\/v1\/(trash|devices|links|conflicts|activity|admin|shares|search|me\/usage)/);
    await page.route("**/sync/v1/namespaces", refuse);
    await page.reload();
    await shoot("trouble-start");
  });
}

const totp = (secret) => {
  const bits = [...secret.replace(/[\s=]/g, "")].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac("sha1", key).update(counter).digest();
  return String((mac.readUInt32BE(mac.at(-1) & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
};

async function guests(camera, bare) {
  const { world, links } = camera;
  await camera.part("guests", { login: false }, async ({ page, shoot }) => {
    const look = async (name, path) => {
      await page.goto(`${world.url}${path}`);
      await shoot(name);
    };
    await look("login", "/");
    await page.fill('input[name="email"]', EMAIL);
    await page.fill('input[name="password"]', "wrong words");
    await page.keyboard.press("Enter");
    await page.locator("[role=alert]").waitFor();
    await shoot("login-refused");
    await look("setup-over", "/setup");
    await look("public-unknown", "/s/nothing");
    for (const [name, path] of Object.entries(links)) await look(`public-${name}`, path);
    await page.goto(`${world.url}${links.locked}`);
    await page.fill('input[name="password"]', "open says me");
    await page.keyboard.press("Enter");
    await page.locator("[role=alert]").waitFor();
    await shoot("public-locked-refused");
    await page.fill('input[name="password"]', "open sesame");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "readme.md" }).waitFor();
    await shoot("public-unlocked");
    for (const name of ["readme.md", "tone.wav", "paper.pdf", "data.bin"]) {
      await page.goto(`${world.url}${links.locked}`);
      await page.getByRole("link", { name }).click();
      await shoot(`public-${name}`);
    }
    await page.goto(`${world.url}${links.folder}`);
    await page.getByRole("link", { name: "holiday 1.png" }).click();
    await page.waitForLoadState("networkidle");
    await shoot("public-picture");
    await page.goto(`${world.url}${links.view}`);
    await page.getByRole("link", { name: "holiday 1.png" }).click();
    await shoot("public-view-picture");
    await page.goto(`${world.url}${links.upload}`);
    await page.setInputFiles("#files", [{ name: "from a guest, with a rather long name.txt", mimeType: "text/plain", buffer: randomBytes(2000) }]);
    await shoot("public-upload-chosen");
    await page.locator("form button").click();
    await page.locator("#sent li").first().waitFor();
    await shoot("public-upload-sent");
  });
  await camera.part("guests", {}, async ({ page, shoot }) => {
    await page.goto(`${world.url}/device`);
    await shoot("device-enter");
    await page.fill('input[name="user_code"]', "BCDF-GHJK");
    await page.keyboard.press("Enter");
    await page.locator("[role=alert]").waitFor();
    await shoot("device-unknown");
    for (const decision of ["deny", "approve"]) {
      const asked = await page.request.post(`${world.url}/oauth/device_authorization`, { form: { client_id: "ferry", device_name: "Anna's laptop in the study", device_public_key: randomBytes(32).toString("hex"), system: "Linux x86_64" } });
      await page.goto((await asked.json()).verification_uri_complete.replace(/^https?:\/\/[^/]+/, world.url));
      await shoot("device-decide");
      await page.locator(`[value=${decision}]`).click();
      await shoot(`device-${decision}`);
    }
  });
  await camera.part("guests", { login: false }, async ({ page, shoot }) => {
    await page.goto(`${world.url}/login`);
    await page.fill('input[name="email"]', "dora@example.net");
    await page.fill('input[name="password"]', PASSWORD);
    await page.keyboard.press("Enter");
    await page.locator('input[name="code"]').waitFor();
    await shoot("login-code");
    await page.fill('input[name="code"]', "000000");
    await page.keyboard.press("Enter");
    await page.locator("[role=alert]").waitFor();
    await shoot("login-code-refused");
  });
  await camera.part("guests-setup", { login: false }, async ({ page, shoot }) => {
    const key = await until("the relay names the way to set it up", () => /\/setup#k=([^\s]+)/.exec(bare.relayLog())?.[1]);
    await page.goto(`${bare.url}/setup#k=${key}`);
    await shoot("setup");
    await page.goto(`${bare.url}/login`);
    await shoot("setup-login");
  });
}

const world = new Harness();
const bare = new Harness();
mkdirSync(directory, { recursive: true });
const failures = [];
try {
  await world.open();
  await bare.open({ users: false });
  const links = await furnish(world, totp);
  for (const [locale, colorScheme] of LOOKS) {
    for (const size of SIZES) {
      const camera = new Camera(world, links, locale, colorScheme, size);
      for (const part of [lists, previews, history, selection, sharing, dialogs, uploads, empty, troubles, guests]) await part(camera, bare);
      failures.push(...camera.failures);
      console.log(`${locale} ${colorScheme} ${size.join("x")}: ${camera.failures.length ? camera.failures.join("\n  ") : "all drawn"}`);
    }
  }
} finally {
  await world.close();
  await bare.close();
}
process.exitCode = failures.length ? 1 : 0;
