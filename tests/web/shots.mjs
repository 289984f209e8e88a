// Every page as a picture, light and dark, wide and narrow: for people to look at. `tests/web/run --shots DIRECTORY [LANGUAGE]`.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Harness } from "./harness.mjs";
import { pdf, png, wav } from "./samples.mjs";

const [, , directory] = process.argv;
const locale = process.env.FERRY_SHOTS_LOCALE ?? "en-US";
const SIZES = [[1280, 800], [320, 640]];
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
  world.settle();
  for (const colorScheme of ["light", "dark"]) {
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
      }
      await page.keyboard.press("?");
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
      await guest.context().close();
    }
  }
} finally {
  await world.close();
}
