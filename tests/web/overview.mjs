// Activity, devices, storage; rewinding a folder and back; the end of what is in the trash.

import { test } from "node:test";
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { becomes, fits, until } from "./harness.mjs";

const PAGES = [["activity", "Activity"], ["storage", "Storage"], ["rewind", "Rewind a folder"], ["trash", "Trash"], ["devices", "Devices"]];
const item = (page, text) => page.locator(".rows > li", { hasText: text });

export function tests(world) {
  test("activity says who did what on which device, in groups, and leads to it", async () => {
    mkdirSync(world.file("Lemurs"));
    for (let n = 1; n <= 5; n += 1) writeFileSync(world.file(`Lemurs/lemur ${n}.txt`), `${n}`);
    world.settle();
    const page = await world.page();
    await page.getByRole("link", { name: "Activity" }).click();
    const group = item(page, "added 5 items").first();
    await group.waitFor();
    await becomes(true, async () => /You added 5 items.*Ferry › Lemurs · on LAPTOP/.test(await group.textContent()));
    await group.locator("summary").click();
    await group.getByRole("link", { name: "lemur 3.txt" }).waitFor();
    // It goes on by itself, and what was open stays open.
    writeFileSync(world.file("Lemurs/lemur 1.txt"), "changed");
    rmSync(world.file("Lemurs/lemur 2.txt"));
    world.settle();
    await item(page, "changed “lemur 1.txt”").waitFor();
    await item(page, "deleted “lemur 2.txt”").waitFor();
    await becomes(true, () => group.getByRole("link", { name: "lemur 3.txt" }).isVisible());
    assert.deepEqual(await world.axe(page), [], "activity");
    await item(page, "changed “lemur 1.txt”").getByRole("link").click();
    await page.locator('.grid-row[aria-selected="true"]', { hasText: "lemur 1.txt" }).waitFor();
    await page.goto(`${world.url}/#/activity`);
    await page.getByRole("combobox", { name: "Device" }).selectOption({ label: "LAPTOP" });
    await item(page, "deleted “lemur 2.txt”").waitFor();
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a folder is rewound after a look at what that does, and the rewind is undone", async () => {
    writeFileSync(world.file("okapi.txt"), "good");
    writeFileSync(world.file("tapir.txt"), "stays");
    world.settle();
    const page = await world.page();
    await page.goto(`${world.url}/#/activity`);
    await item(page, "okapi.txt").first().waitFor();
    await new Promise((go) => setTimeout(go, 1100));
    const good = Date.now();
    await new Promise((go) => setTimeout(go, 1100));
    writeFileSync(world.file("okapi.txt"), "bad");
    rmSync(world.file("tapir.txt"));
    writeFileSync(world.file("ransom.txt"), "pay");
    world.settle();
    await page.goto(`${world.url}/#/rewind/${(await page.evaluate(() => fetch("/sync/v1/namespaces").then((answer) => answer.json())))[0].id}/${good}`);
    await page.getByRole("button", { name: "Show what would change" }).click();
    await page.getByRole("heading", { name: /^What would change in/ }).waitFor();
    await becomes(true, async () => /older version/.test(await item(page, "okapi.txt").textContent()));
    await becomes(true, async () => /comes back/.test(await item(page, "tapir.txt").textContent()));
    await becomes(true, async () => /to the trash/.test(await item(page, "ransom.txt").textContent()));
    assert.equal(readFileSync(world.file("okapi.txt"), "utf8"), "bad", "a look changes nothing");
    assert.deepEqual(await world.axe(page), [], "a plan");
    if (process.env.FERRY_SHOTS) await page.screenshot({ path: `${process.env.FERRY_SHOTS}/rewind-plan.png` });
    await page.getByRole("button", { name: "Rewind now" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Rewind now" }).click();
    await page.getByRole("button", { name: "Undo the rewind" }).waitFor();
    await until("the device has what was", () => readFileSync(world.file("okapi.txt"), "utf8") === "good" && existsSync(world.file("tapir.txt")) && !existsSync(world.file("ransom.txt")));
    assert.deepEqual(await world.axe(page), [], "done");
    await page.getByRole("button", { name: "Undo the rewind" }).click();
    await until("the device has what was before it", () => readFileSync(world.file("okapi.txt"), "utf8") === "bad" && !existsSync(world.file("tapir.txt")) && existsSync(world.file("ransom.txt")));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("what is in the trash is deleted for good after a warning", async () => {
    for (const name of ["dodo.txt", "moa.txt"]) writeFileSync(world.file(name), `${name} was here`);
    world.settle();
    for (const name of ["dodo.txt", "moa.txt"]) rmSync(world.file(name));
    world.settle();
    const page = await world.page();
    await page.goto(`${world.url}/#/trash`);
    await page.getByRole("button", { name: "Delete for good: “dodo.txt”" }).click();
    await page.getByRole("dialog").getByText("nobody can bring it back").waitFor();
    assert.deepEqual(await world.axe(page), [], "the warning");
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Delete for good: “dodo.txt”" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete for good" }).click();
    await item(page, "dodo.txt").waitFor({ state: "detached" });
    await item(page, "moa.txt").waitFor();
    await page.getByRole("button", { name: "Empty trash …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("What").selectOption("365");
    await dialog.getByText(/^0 items/).waitFor();
    await becomes(true, () => dialog.getByRole("button", { name: "Delete for good" }).isDisabled());
    await dialog.getByLabel("What").selectOption("0");
    assert.deepEqual(await world.axe(page), [], "emptying");
    await dialog.getByRole("button", { name: "Delete for good" }).click();
    await page.getByRole("heading", { name: "The trash is empty" }).waitFor();
    await becomes(true, () => page.getByRole("button", { name: "Empty trash …" }).isHidden());
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("storage says what it goes to and what is saved, and devices how they are reached", async () => {
    writeFileSync(world.file("twice a.bin"), "x".repeat(300_000));
    writeFileSync(world.file("twice b.bin"), "x".repeat(300_000));
    world.settle();
    const page = await world.page();
    await page.getByRole("link", { name: "What takes space" }).click();
    await page.getByRole("heading", { name: "Storage", exact: true }).waitFor();
    const saved = page.locator(".facts div", { hasText: "Equal parts stored once" }).locator("strong");
    await saved.waitFor();
    await becomes(true, async () => /kB|MB/.test(await saved.textContent()));
    await page.goto(`${world.url}/#/devices`);
    await item(page, "LAPTOP").waitFor();
    await until("what the device says of itself", async () => {
      await page.reload();
      await item(page, "LAPTOP").waitFor();
      return /Linux.*Ferry \d/.test(await item(page, "LAPTOP").textContent());
    });
    await becomes(true, async () => /Through the relay only/.test(await item(page, "LAPTOP").textContent()));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`the overview pages are for everybody, ${colorScheme}`, async () => {
      writeFileSync(world.file("narrow.txt"), "narrow");
      world.settle();
      rmSync(world.file("narrow.txt"));
      world.settle();
      const page = await world.page({ colorScheme, viewport: { width: 1100, height: 800 }, reducedMotion: "reduce" });
      for (const [name, title] of PAGES) {
        await page.setViewportSize({ width: 1100, height: 800 });
        await page.goto(`${world.url}/#/${name}`);
        await page.getByRole("heading", { name: title, exact: true }).waitFor();
        await page.waitForLoadState("networkidle");
        assert.deepEqual(await world.axe(page), [], name);
        if (process.env.FERRY_SHOTS) await page.screenshot({ path: `${process.env.FERRY_SHOTS}/${name}-${colorScheme}.png` });
        await page.setViewportSize({ width: 320, height: 640 });
        await fits(page, 320);
        if (process.env.FERRY_SHOTS) await page.screenshot({ path: `${process.env.FERRY_SHOTS}/${name}-320-${colorScheme}.png` });
      }
      await page.context().close();
    });
  }
}
