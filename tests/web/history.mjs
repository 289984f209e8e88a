// The history of a file in the browser: who and what, labels, comparing, bringing back, and how long versions are kept.

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { becomes, row, until } from "./harness.mjs";

const NAME = "history of this.txt";

async function openVersions(page) {
  await row(page, NAME).locator(".row-check").click();
  await page.getByRole("button", { name: "Version history" }).first().click();
  const dialog = page.getByRole("dialog", { name: `Versions of “${NAME}”` });
  await dialog.locator("[data-version]").first().waitFor();
  return dialog;
}

export function tests(world) {
  test("the history of a file says who and what, compares, takes a label, and brings a version back", async () => {
    for (const text of ["one\ntwo\nthree\n", "one\n2\nthree\n", "one\n2\nthree\nfour\n"]) {
      writeFileSync(world.file(NAME), text);
      world.settle();
    }
    const page = await world.page();
    const dialog = await openVersions(page);
    const version = (number) => dialog.locator(`[data-version="${number}"]`);
    const newest = 3;
    await becomes(`${newest}`, () => dialog.locator("[data-version]").first().getAttribute("data-version"));
    await version(newest).getByText("current").waitFor();
    await version(1).getByText("by you, on LAPTOP").waitFor();
    await version(1).getByText("by itself").waitFor();
    await dialog.getByText("Old versions are kept for ever.").waitFor();
    assert.deepEqual(await world.axe(page), [], "the history");

    await version(2).getByRole("button", { name: "Label: version 2" }).click();
    await page.getByLabel("Label", { exact: true }).fill("sent to the printer");
    await page.keyboard.press("Enter");
    await version(2).locator(".version-label", { hasText: "sent to the printer" }).waitFor();

    await version(newest).getByRole("button", { name: /^Compare/ }).click();
    const compare = page.getByRole("dialog", { name: `Compare versions of “${NAME}”` });
    await compare.locator(".diff-added", { hasText: "four" }).waitFor();
    await compare.getByText("1 line added, 0 lines removed").waitFor();
    await compare.getByLabel("Older").selectOption("1");
    await compare.getByText("2 lines added, 1 line removed").waitFor();
    // Signs and words, not colour alone.
    const removed = compare.locator(".diff-removed", { hasText: "two" });
    await becomes("−removed", async () => (await removed.locator(".diff-sign").textContent()).trim());
    assert.deepEqual(await world.axe(page), [], "the comparison");
    await page.keyboard.press("Escape");

    await version(1).getByRole("button", { name: "Preview: version 1" }).click();
    await page.locator(".stage pre", { hasText: "two" }).waitFor();
    await page.keyboard.press("Escape");
    const download = page.waitForEvent("download");
    await version(1).getByRole("link", { name: "Download: version 1" }).click();
    assert.equal(readFileSync(await (await download).path(), "utf8"), "one\ntwo\nthree\n");

    await version(1).getByRole("button", { name: "Restore: version 1" }).click();
    await version(4).getByText("same content as version 1").waitFor();
    await until("the old content is on the disk", () => readFileSync(world.file(NAME), "utf8") === "one\ntwo\nthree\n");
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("how long versions are kept is said beforehand, set for a folder and for all, and taken back", async () => {
    const page = await world.page();
    let dialog = await openVersions(page);
    await dialog.getByRole("button", { name: "Change how long" }).click();
    const rule = page.getByRole("dialog", { name: "Old versions and trash of this folder" });
    await rule.getByLabel("Old versions", { exact: true }).selectOption("monthYear");
    await rule.getByLabel("At most so many").fill("1");
    await rule.getByLabel("Trash", { exact: true }).selectOption("90");
    await rule.getByRole("button", { name: "Show what would go" }).click();
    await rule.getByText(NAME).waitFor();
    assert.deepEqual(await world.axe(page), [], "the rule");
    await rule.getByRole("button", { name: "Save" }).click();
    await dialog.getByText("Old versions are kept for 30 days, then one a day until 365 days. At most 1 old version of a file. The trash is kept for 90 days.").waitFor();
    await dialog.getByRole("button", { name: "Change how long" }).click();
    await rule.getByLabel("Old versions", { exact: true }).selectOption("inherit");
    await rule.getByRole("button", { name: "Save" }).click();
    await dialog.getByText("Old versions are kept for ever. The trash is kept until somebody empties it.").waitFor();
    await page.keyboard.press("Escape");

    await page.goto(`${world.url}/#/settings`);
    const card = page.locator(".card", { hasText: "Old versions and trash" });
    await card.getByRole("button", { name: "Change how long" }).click();
    const all = page.getByRole("dialog", { name: "Old versions and trash" });
    await all.getByLabel("Old versions", { exact: true }).selectOption("year");
    await all.getByRole("button", { name: "Save" }).click();
    await card.getByText("Old versions are kept for 365 days.").waitFor();
    assert.deepEqual(await world.axe(page), [], "the settings");
    await card.getByRole("button", { name: "Change how long" }).click();
    await all.getByLabel("Old versions", { exact: true }).selectOption("forever");
    await all.getByRole("button", { name: "Save" }).click();
    await card.getByText("Old versions are kept for ever.").waitFor();
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });
}
