// Every page as a picture, light and dark, wide and narrow: for people to look at. `tests/web/run --shots DIRECTORY [LANGUAGE]`.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { drop, EMAIL, Harness } from "./harness.mjs";
import { pdf, png, wav } from "./samples.mjs";

const [, , directory] = process.argv;
const locale = process.env.FERRY_SHOTS_LOCALE ?? "en-US";
const SIZES = [[1100, 720], [320, 640]];
const SCHEMES = (process.env.FERRY_SHOTS_SCHEMES ?? "light dark").split(" ");
const PAGES = (process.env.FERRY_SHOTS_PAGES ?? "files shared trash conflicts links devices activity search storage settings admin").split(" ");

const world = new Harness();
mkdirSync(directory, { recursive: true });
try {
  await world.open();
  world.addUser("bob@example.com");
  await world.startDevice();
  mkdirSync(world.file("Pictures"));
  mkdirSync(world.file("Notes"));
  for (let i = 0; i < 7; i += 1) {
    const [width, height] = [[600, 400], [300, 500], [900, 300]][i % 3];
    writeFileSync(world.file(`Pictures/holiday ${i + 1}.png`), png(width, height, (x, y) => [(x * (i + 1)) % 256, (y * 2 + i * 30) % 256, (x + y) % 256]));
  }
  writeFileSync(world.file("Notes/readme.md"), "# Notes\n\nSome *text* with a [link](https://example.org).\n\n- [x] one\n- [ ] two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n```js\nconst a = 1; // one\n```\n");
  writeFileSync(world.file("Notes/main.rs"), "//! A program.\n\nfn main() {\n    let greeting = \"Hello\";\n    println!(\"{greeting} {}\", 42);\n}\n".repeat(9));
  writeFileSync(world.file("Notes/long.log"), Array.from({ length: 20_000 }, (_, i) => `2026-11-29 line ${i}`).join("\n"));
  writeFileSync(world.file("Notes/tone.wav"), wav(20));
  writeFileSync(world.file("Notes/paper.pdf"), pdf("A page of paper"));
  writeFileSync(world.file("a rather long name of a file that does not fit into a narrow screen, report of the third quarter.txt"), "text");
  writeFileSync(world.file("gone.txt"), "gone");
  writeFileSync(world.file("plan.txt"), "the plan");
  writeFileSync(world.file("story.txt"), "one\ntwo\nthree\n");
  world.settle();
  writeFileSync(world.file("story.txt"), "one\n2\nthree\nfour\n");
  rmSync(world.file("gone.txt"));
  world.settle();
  const ask = (page, path, json) => page.evaluate(async ([to, body]) => {
    const { csrf_token: token } = await (await fetch("/api/v1/me/browser")).json();
    const answer = await fetch(to, { method: "POST", headers: { "content-type": "application/json", "x-csrf-token": token }, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }, [path, json]);
  // What is there of others and for others: an invitation, links, and a file that two changed at once.
  const bob = await world.page({ email: "bob@example.com" });
  await ask(bob, "/api/v1/files/batch", { actions: [{ action: "mkdir", path: "/", file_name: "Recipes" }] });
  const [home] = (await bob.evaluate(async () => (await (await fetch("/api/v1/spaces")).json()).spaces));
  await ask(bob, "/api/v1/shares", { space_id: home.space_id, email: EMAIL, role: "editor" });
  await bob.context().close();
  const anna = await world.page();
  const links = {};
  for (const [name, body] of Object.entries({ folder: { path: "/Pictures" }, locked: { path: "/Notes", password: "open sesame", expires_in: 604_800 }, upload: { path: "/Notes", kind: "upload" } })) {
    links[name] = new URL((await ask(anna, "/api/v1/links", body)).link.url).pathname;
  }
  world.daemon.kill("SIGSTOP");
  writeFileSync(world.file("plan.txt"), "the device's plan");
  await drop(anna, { "plan.txt": "the browser's plan" });
  await anna.locator("dialog .button").last().click();
  await anna.waitForSelector(".uploads [data-state=done]");
  world.daemon.kill("SIGCONT");
  world.settle();
  await anna.context().close();
  for (const colorScheme of SCHEMES) {
    for (const [width, height] of SIZES) {
      const page = await world.page({ colorScheme, viewport: { width, height }, locale });
      const shoot = async (name) => {
        await page.waitForTimeout(350);
        await page.screenshot({ path: join(directory, `${name}-${colorScheme}-${width}.png`) });
      };
      const open = async (...path) => {
        await page.goto(`${world.url}/#/${path.map(encodeURIComponent).join("/")}`);
        await page.waitForLoadState("networkidle");
      };
      await shoot("start");
      for (const name of PAGES) {
        await open(name);
        await shoot(name);
      }
      await open("files");
      await page.locator(".row-name", { hasText: "Pictures" }).click();
      await page.waitForLoadState("networkidle");
      await shoot("pictures-list");
      await page.locator(".tools .icon-button").nth(-2).click();
      await shoot("pictures-tiles");
      await page.locator(".tools .icon-button").nth(-2).click();
      await page.locator(".row-name").first().click();
      await shoot("preview-picture");
      await page.keyboard.press("Escape");
      await open("files");
      await page.locator(".row-name", { hasText: "Notes" }).click();
      for (const name of ["readme.md", "main.rs", "long.log", "tone.wav", "paper.pdf"]) {
        await page.locator(".row-name", { hasText: name }).click();
        await shoot(`preview-${name}`);
        await page.keyboard.press("Escape");
      }
      await open("files");
      await page.locator(".grid-row", { hasText: "story.txt" }).locator(".row-check").click();
      await page.locator(".tools .icon-button").last().click();
      await page.locator("[role=menuitem]", { hasText: /^Version/ }).click();
      await page.locator("[data-version]").first().waitFor();
      await shoot("versions");
      await page.locator("[data-version]").first().locator("button").nth(1).click();
      await shoot("versions-next");
      await page.keyboard.press("Escape");
      await page.keyboard.press("Escape");
      await open("rewind");
      await page.locator("form .primary").click();
      await shoot("rewind");
      await open("files");
      await page.locator(".grid-row", { hasText: "Notes" }).locator(".row-check").click();
      await shoot("selection");
      await page.locator(".tools .icon-button").last().click();
      await shoot("menu");
      await page.locator("[role=menuitem]").nth(1).click();
      await shoot("share-directory");
      await page.keyboard.press("Escape");
      if (width > 800) {
        await open("files");
        await page.reload();
        await page.locator(".tools .icon-button").first().click();
        await shoot("share-folder");
        await page.keyboard.press("Escape");
        await page.locator(".tools .icon-button").last().click();
        await shoot("help");
        await page.keyboard.press("Escape");
        await drop(page, { "plan.txt": "again" });
        await shoot("clash");
        await page.keyboard.press("Escape");
        await drop(page, { [`large-${colorScheme}.bin`]: "x".repeat(3_000_000), [`small-${colorScheme}.txt`]: `${colorScheme}` });
        await page.waitForSelector(".uploads [data-state=done]");
        await shoot("uploads");
      }
      await page.context().close();
      const guest = await world.page({ colorScheme, viewport: { width, height }, locale, login: false });
      const look = async (name, path) => {
        await guest.goto(`${world.url}${path}`);
        await guest.waitForTimeout(200);
        await guest.screenshot({ path: join(directory, `${name}-${colorScheme}-${width}.png`) });
      };
      await look("login", "/");
      await look("page-login", "/login");
      await look("page-setup", "/setup");
      await look("page-share-gone", "/s/nothing");
      await look("page-device", "/device");
      for (const [name, path] of Object.entries(links)) await look(`page-share-${name}`, path);
      await guest.goto(`${world.url}${links.folder}`);
      await guest.getByRole("link", { name: "holiday 1.png" }).click();
      await guest.waitForTimeout(300);
      await guest.screenshot({ path: join(directory, `page-share-picture-${colorScheme}-${width}.png`) });
      await guest.context().close();
    }
  }
} finally {
  await world.close();
}
