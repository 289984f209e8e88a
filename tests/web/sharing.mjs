// Sharing between two people: invited, accepted, a role changed, revoked; and one file alone.

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { drop, row, until } from "./harness.mjs";

const BOB = "bob@example.com";

export function tests(world) {
  test("a folder is shared with somebody, who reads, then changes, then has it no more", async () => {
    world.addUser(BOB);
    writeFileSync(world.file("shared plan.txt"), "the plan");
    world.settle();
    const [owner, guest] = [await world.page(), await world.page({ email: BOB })];
    await owner.getByRole("button", { name: "Share this folder" }).click();
    const dialog = owner.getByRole("dialog", { name: "Share “Ferry”" });
    await dialog.getByLabel("E-mail address").fill("not an address");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.getByText("This is no e-mail address.").waitFor();
    await dialog.getByLabel("E-mail address").fill(BOB);
    await owner.keyboard.press("Enter");
    await dialog.locator(`li[data-email="${BOB}"]`, { hasText: "invited" }).waitFor();
    assert.deepEqual(await world.axe(owner), [], "the dialog");

    // The other hears of it by itself.
    await guest.locator("[data-nav=shared] .badge", { hasText: "1" }).waitFor();
    await guest.getByRole("link", { name: "Shared with me" }).click();
    await guest.getByRole("button", { name: "Accept “Ferry”" }).waitFor();
    assert.deepEqual(await world.axe(guest), [], "the invitation");
    await guest.getByRole("button", { name: "Accept “Ferry”" }).click();
    await guest.locator(".rows a", { hasText: "Ferry" }).click();
    await row(guest, "shared plan.txt").waitFor();
    assert.equal(await guest.locator(".tools .primary").count(), 0);
    assert.deepEqual(await drop(guest, { "refused.txt": "from a reader" }), [true, true, true]);
    await guest.locator(".toast", { hasText: "not put anything into it" }).waitFor();
    assert.equal(await guest.locator(".uploads [data-state]").count(), 0);

    await dialog.locator(`li[data-email="${BOB}"] .tag`).waitFor({ state: "detached" });
    await dialog.getByRole("combobox", { name: /^What bob/ }).selectOption("editor");
    await guest.locator(".tools .primary").waitFor();
    await drop(guest, { "from bob.txt": "an edit" });
    await until("it is on the owner's disk", () => world.exists("from bob.txt"));
    assert.equal(readFileSync(world.file("from bob.txt"), "utf8"), "an edit");

    await dialog.getByRole("button", { name: /^Remove bob/ }).click();
    await guest.getByText("“Ferry” is no longer shared with you.").waitFor();
    await row(guest, "shared plan.txt").waitFor({ state: "detached" });
    await dialog.getByText("Shared with nobody yet.").waitFor();
    assert.deepEqual([...owner.troubles, ...guest.troubles], []);
    await owner.context().close();
    await guest.context().close();
  });

  test("one file is shared, gets a new version from its receiver, and is taken back", async () => {
    writeFileSync(world.file("one file.txt"), "first");
    world.settle();
    const [owner, guest] = [await world.page(), await world.page({ email: BOB })];
    await row(owner, "one file.txt").locator(".row-check").click();
    await owner.getByRole("button", { name: "Share …" }).click();
    const dialog = owner.getByRole("dialog");
    await dialog.getByLabel("E-mail address").fill(BOB);
    await dialog.getByLabel("Access").selectOption("editor");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.locator(`li[data-email="${BOB}"]`).waitFor();

    await guest.goto(`${world.url}/#/shared`);
    await guest.getByRole("button", { name: "Preview “one file.txt”" }).click();
    await guest.locator(".stage pre", { hasText: "first" }).waitFor();
    await guest.keyboard.press("Escape");
    assert.deepEqual(await world.axe(guest), [], "a shared file");
    const chooser = guest.waitForEvent("filechooser");
    await guest.getByRole("button", { name: "Upload a new version of “one file.txt”" }).click();
    await (await chooser).setFiles({ name: "any name", mimeType: "text/plain", buffer: Buffer.from("second") });
    await until("the new version is on the owner's disk", () => readFileSync(world.file("one file.txt"), "utf8") === "second");

    await dialog.getByRole("button", { name: /^Remove/ }).click();
    await guest.getByText("Nothing yet").waitFor();
    assert.deepEqual([...owner.troubles, ...guest.troubles], []);
    await owner.context().close();
    await guest.context().close();
  });
}
