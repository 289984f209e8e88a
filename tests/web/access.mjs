// For everybody: by keyboard alone, on a small screen, in light and dark, in two languages.

import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { becomes, drop, fits, row, until } from "./harness.mjs";

const PAGES = ["files", "shared", "trash", "conflicts", "links", "devices", "settings", "admin"];

export function tests(world) {
  test("a journey by keyboard alone: new folder, rename, select, move, delete, undo", async () => {
    const page = await world.page();
    // Messages stay long enough for a machine under load.
    await page.evaluate(() => {
      const own = globalThis.setTimeout;
      globalThis.setTimeout = (run, ms, ...rest) => own(run, ms === 6000 ? 120_000 : ms, ...rest);
    });
    const press = (...keys) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
    await drop(page, { "by-keys.txt": "keys" });
    await row(page, "by-keys.txt").waitFor();
    // The first stop is the way past the navigation.
    await page.evaluate(() => document.activeElement.blur());
    await press("Tab");
    await becomes("skip", () => page.evaluate(() => document.activeElement.className));
    await press("Enter");
    await becomes("main", () => page.evaluate(() => document.activeElement.id));
    const focusOn = async (selector) => {
      for (let i = 0; i < 40; i += 1) {
        if (await page.evaluate((s) => document.activeElement.matches(s), selector)) return;
        await press("Tab");
      }
      assert.fail(`${selector} cannot be reached by Tab`);
    };
    await focusOn(".tools .primary");
    await press("Enter", "Enter");
    await page.locator("dialog input").waitFor();
    await page.keyboard.type("Keys");
    await press("Enter");
    await row(page, "Keys").waitFor();
    await becomes("grid", () => page.evaluate(() => document.activeElement.getAttribute("role")));
    await press("F2");
    await page.locator("dialog input").waitFor();
    await page.keyboard.type("Keyboard");
    await press("Enter");
    await row(page, "Keyboard").waitFor();
    // By its first letters, then into the new folder.
    // Letters that come too late, as on a loaded machine, begin anew.
    const active = () => page.evaluate(() => document.getElementById(document.activeElement.getAttribute("aria-activedescendant"))?.querySelector(".row-name")?.textContent);
    const find = (letters, name) => until(`${name} is found by its letters`, async () => {
      await page.keyboard.type(letters);
      if (await active() === name) return true;
      await page.waitForTimeout(1000);
    });
    await press("Escape");
    await find("by-", "by-keys.txt");
    await press("Space", "Shift+F10");
    await page.locator("[role=menu]").waitFor();
    await page.keyboard.type("m");
    await press("Enter");
    await page.locator(".picker button", { hasText: "Keyboard" }).waitFor();
    await page.locator(".picker button", { hasText: "Keyboard" }).focus();
    await press("Enter");
    await page.locator(".picker-path", { hasText: "Keyboard" }).waitFor();
    await focusOn("dialog .primary");
    await press("Enter");
    await row(page, "by-keys.txt").waitFor({ state: "detached" });
    await until("the list has the focus again", () => page.evaluate(() => document.activeElement.getAttribute("role") === "grid"));
    await press("Home");
    await find("keyb", "Keyboard");
    await press("Enter");
    await row(page, "by-keys.txt").waitFor();
    await page.locator(".grid").focus();
    await press("Home", "Delete");
    await row(page, "by-keys.txt").waitFor({ state: "detached" });
    await page.locator(".toast:last-child .link").waitFor();
    await focusOn(".toast:last-child .link");
    await press("Enter");
    await row(page, "by-keys.txt").waitFor();
    await press("Backspace");
    await row(page, "Keyboard").waitFor();
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`axe finds nothing on any page, ${colorScheme}`, async () => {
      writeFileSync(world.file("axe.txt"), "axe");
      world.settle();
      const page = await world.page({ colorScheme });
      for (const name of PAGES) {
        await page.goto(`${world.url}/#/${name}`);
        await page.waitForSelector(name === "files" ? ".grid-row" : ".page h1");
        await page.waitForLoadState("networkidle");
        assert.deepEqual(await world.axe(page), [], name);
      }
      await page.goto(`${world.url}/#/files`);
      await page.waitForSelector(".grid-row");
      await page.locator(".grid-row .row-check").first().click();
      assert.deepEqual(await world.axe(page), [], "a selection");
      await page.getByRole("button", { name: "More actions" }).click();
      assert.deepEqual(await world.axe(page), [], "a menu");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Move to …" }).click();
      await page.waitForSelector(".picker li");
      assert.deepEqual(await world.axe(page), [], "a dialog");
      await page.context().close();
    });
  }

  test("at 320 pixels nothing is wider than the screen, and the navigation opens", async () => {
    writeFileSync(world.file("small screen.txt"), "small");
    world.settle();
    const page = await world.page({ viewport: { width: 320, height: 640 } });
    for (const name of PAGES) {
      await page.goto(`${world.url}/#/${name}`);
      await page.waitForSelector(name === "files" ? ".grid-row" : ".page h1");
      await page.waitForLoadState("networkidle");
      await fits(page, 320);
    }
    await page.getByRole("button", { name: "Menu", exact: true }).click();
    await page.getByRole("link", { name: "Trash" }).click();
    await page.getByRole("heading", { name: "Trash", exact: true }).waitFor();
    await page.context().close();
  });

  test("a person who prefers German reads German", async () => {
    const page = await world.page({ locale: "de-DE" });
    await page.getByRole("link", { name: "Papierkorb" }).waitFor();
    await becomes("de", () => page.evaluate(() => document.documentElement.lang));
    await page.context().close();
  });

  test("a list of thousands holds only what is seen, and its end is reached", async () => {
    const page = await world.page();
    const count = 2500;
    mkdirSync(world.file("many"));
    for (let i = 0; i < count; i += 1) writeFileSync(world.file(`many/d${i}`), `${i}`);
    world.settle();
    await page.goto(`${world.url}/#/files`);
    await page.locator(".row-name", { hasText: "many" }).click();
    await page.locator(".status-line", { hasText: "2,500" }).waitFor();
    assert.ok((await page.locator(".grid-row").count()) < 80);
    await page.locator(".grid").focus();
    await page.keyboard.press("End");
    await row(page, `d${count - 1}`).waitFor();
    assert.ok((await page.locator(".grid-row").count()) < 80);
    await until("it is in view", () => row(page, `d${count - 1}`).evaluate((element) => element.getBoundingClientRect().bottom <= innerHeight));
    await page.context().close();
  });
}
