// Search: by keyboard from anywhere, filters, the way to the place, and what somebody else has.

import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { becomes, fits, row, until } from "./harness.mjs";

const CAROL = "carol@example.com";

const names = (page) => page.locator(".result strong").allTextContents();
const hit = (page, name) => page.locator(".results li", { has: page.locator("strong", { hasText: name }) });

export function tests(world) {
  test("a search by keyboard from anywhere leads to the place of a file", async () => {
    mkdirSync(world.file("Zephyr/Übersicht 2026"), { recursive: true });
    writeFileSync(world.file("Zephyr/Übersicht 2026/zephyr plan.txt"), "plan");
    writeFileSync(world.file("Zephyr/old zephyr.png"), "no picture");
    writeFileSync(world.file("Zephyr/100%_zephyr.txt"), "signs");
    writeFileSync(world.file("<b>zephyr<b>.txt"), "tags");
    world.settle();
    const page = await world.page();
    await page.locator(".grid").focus();
    await page.keyboard.press("/");
    await becomes("q", () => page.evaluate(() => document.activeElement.name));
    await page.keyboard.type("ZEPHYR");
    await hit(page, "zephyr plan.txt").waitFor();
    await becomes("q", () => page.evaluate(() => document.activeElement.name));
    await until("what it is, then what begins so", async () => (await names(page)).slice(0, 2).join() === "Zephyr,zephyr plan.txt");
    await becomes(5, async () => (await names(page)).length);
    await becomes(true, async () => /Ferry › Zephyr › Übersicht 2026/.test(await hit(page, "zephyr plan.txt").textContent()));
    await page.getByText("5 results", { exact: true }).waitFor();
    assert.deepEqual(await world.axe(page), [], "results");

    // More words, in any order, without accents; then what means something to a database means itself.
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("plan zeph");
    await until("one is left", async () => (await names(page)).join() === "zephyr plan.txt");
    await becomes(["zeph", "plan"], () => page.locator("mark").allTextContents());
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("ubersicht");
    await hit(page, "Übersicht 2026").waitFor();
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("100%_z");
    await until("signs are signs", async () => (await names(page)).join() === "100%_zephyr.txt");
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("xy%zz");
    await page.getByRole("heading", { name: "Nothing found" }).waitFor();
    assert.deepEqual(await world.axe(page), [], "nothing found");

    // The address is the state, and filters are in it.
    await page.goto(`${world.url}/#/search/${encodeURIComponent("=zephyr")}`);
    await hit(page, "old zephyr.png").waitFor();
    await page.getByRole("combobox", { name: "Kind" }).selectOption("image");
    await until("pictures alone", async () => (await names(page)).join() === "old zephyr.png");
    await page.reload();
    await until("the same again", async () => (await names(page)).join() === "old zephyr.png");
    await becomes("zephyr", () => page.locator("input[name=q]").inputValue());
    await page.getByRole("combobox", { name: "Kind" }).selectOption("");
    await page.getByRole("combobox", { name: "Changed" }).selectOption("7");
    await page.getByRole("combobox", { name: "Size" }).selectOption("1000000");
    await page.getByRole("heading", { name: "Nothing found" }).waitFor();
    await page.getByRole("combobox", { name: "Size" }).selectOption("");

    // Down from the field, along the hits, and into the place.
    await hit(page, "zephyr plan.txt").waitFor();
    await page.locator("input[name=q]").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await becomes("zephyr plan.txt", () => page.evaluate(() => document.activeElement.querySelector("strong").textContent));
    await page.keyboard.press("Enter");
    await row(page, "zephyr plan.txt").waitFor();
    await until("it is selected", async () => (await row(page, "zephyr plan.txt").getAttribute("aria-selected")) === "true");
    await page.goBack();
    await hit(page, "zephyr plan.txt").waitFor();
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("what is renamed or deleted is found as it is now, and the key can be turned off", async () => {
    writeFileSync(world.file("quokka one.txt"), "1");
    writeFileSync(world.file("quokka two.txt"), "2");
    world.settle();
    const page = await world.page();
    await page.locator("input[name=q]").fill("quokka");
    await until("both", async () => (await names(page)).length === 2);
    renameSync(world.file("quokka one.txt"), world.file("wombat.txt"));
    world.settle();
    await until("one by itself", async () => (await names(page)).join() === "quokka two.txt");
    await page.locator("input[name=q]").fill("wombat");
    await hit(page, "wombat.txt").waitFor();
    await page.goto(`${world.url}/#/settings`);
    await page.getByLabel("Press “/” anywhere to search").uncheck();
    await page.getByRole("heading", { name: "Settings", exact: true }).focus();
    await page.keyboard.press("/");
    assert.notEqual(await page.evaluate(() => document.activeElement.name), "q");
    await page.context().close();
  });

  test("nobody finds what is somebody else's, and what is shared is found by its receiver", async () => {
    world.addUser(CAROL);
    writeFileSync(world.file("pangolin.txt"), "mine");
    world.settle();
    const [owner, guest] = [await world.page(), await world.page({ email: CAROL })];
    await guest.locator("input[name=q]").fill("pangolin");
    await guest.getByRole("heading", { name: "Nothing found" }).waitFor();
    await row(owner, "pangolin.txt").locator(".row-check").click();
    await owner.getByRole("button", { name: "Share …" }).click();
    const dialog = owner.getByRole("dialog");
    await dialog.getByLabel("E-mail address").fill(CAROL);
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.locator(`li[data-email="${CAROL}"]`).waitFor();
    // Taken when its receiver looks.
    await guest.goto(`${world.url}/#/shared`);
    await guest.getByRole("button", { name: "Preview “pangolin.txt”" }).waitFor();
    await guest.locator("input[name=q]").fill("pangolin");
    await hit(guest, "pangolin.txt").waitFor();
    await becomes(true, async () => /Shared with me/.test(await hit(guest, "pangolin.txt").textContent()));
    await dialog.getByRole("button", { name: /^Remove/ }).click();
    await guest.getByRole("heading", { name: "Nothing found" }).waitFor();
    assert.deepEqual([...owner.troubles, ...guest.troubles], []);
    await owner.context().close();
    await guest.context().close();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`search fits a small screen, ${colorScheme}`, async () => {
      writeFileSync(world.file("a very long name that goes on and on without any end, numbat.txt"), "1");
      mkdirSync(world.file("numbat with a folder name that is long, too, and goes on"), { recursive: true });
      world.settle();
      const page = await world.page({ viewport: { width: 320, height: 640 }, colorScheme });
      await page.goto(`${world.url}/#/search`);
      await page.getByRole("heading", { name: "Search by name" }).waitFor();
      await page.locator("input[name=q]").fill("numbat");
      await hit(page, "goes on and on").waitFor();
      await fits(page, 320);
      assert.deepEqual(await world.axe(page), [], "small");
      if (process.env.FERRY_SHOTS) await page.screenshot({ path: `${process.env.FERRY_SHOTS}/search-320-${colorScheme}.png` });
      await page.setViewportSize({ width: 1100, height: 700 });
      await page.locator("input[name=q]").fill("t");
      await page.locator(".results li").nth(3).waitFor();
      if (process.env.FERRY_SHOTS) await page.screenshot({ path: `${process.env.FERRY_SHOTS}/search-${colorScheme}.png` });
      await page.context().close();
    });
  }
}
