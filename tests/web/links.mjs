// Public links: made on a page, used by somebody who has no account, ended.

import { test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import { becomes, row, until } from "./harness.mjs";

/** Opens the links of an entry in the list. */
async function openLinks(page, name) {
  await row(page, name).locator(".row-check").click();
  await page.getByRole("button", { name: "Share …" }).click();
  await page.locator(".link-section form").waitFor();
}

/** Fills the form for a new link and gives the address that it makes, on this relay. */
async function makeLink(world, page, { kind, expiry, password, limit } = {}) {
  const form = page.locator(".link-section form");
  const before = await page.locator(".link-section .link-url").count();
  if (kind) await form.locator('[name="kind"]').selectOption(kind);
  if (expiry) await form.locator('[name="expiry"]').selectOption(expiry);
  if (password) await form.locator('[name="password"]').fill(password);
  if (limit) await form.locator('[name="limit"]').fill(String(limit));
  await form.getByRole("button", { name: "Create link" }).click();
  await until("the link is listed", async () => (await page.locator(".link-section .link-url").count()) === before + 1);
  const address = await page.locator(".link-section .link-url").first().textContent();
  return world.url + new URL(address).pathname;
}

const stranger = (world, rest = {}) => world.page({ login: false, ...rest });

export function tests(world) {
  test("a link is made, opened by a stranger, given a password, and ended", async () => {
    mkdirSync(world.file("shared"));
    writeFileSync(world.file("shared/readme.txt"), "for everybody <b>here</b>");
    writeFileSync(world.file("not shared.txt"), "for nobody");
    world.settle();
    const page = await world.page({ permissions: ["clipboard-read", "clipboard-write"] });
    await row(page, "shared").waitFor();
    await openLinks(page, "shared");
    assert.deepEqual(await world.axe(page), [], "the dialog");
    const address = await makeLink(world, page, { expiry: "604800" });
    await page.locator(".link-item", { hasText: "ends" }).waitFor();
    assert.deepEqual(await world.axe(page), [], "the dialog with a link");
    await page.locator(".link-item").getByRole("button", { name: "QR code" }).click();
    const drawn = page.locator(".link-qr");
    await until("the code is drawn", () => drawn.evaluate((image) => image.complete && image.naturalWidth > 0));
    await page.keyboard.press("Escape");

    const guest = await stranger(world);
    await guest.goto(address);
    await guest.getByRole("link", { name: "readme.txt" }).click();
    await guest.locator("pre", { hasText: "for everybody <b>here</b>" }).waitFor();
    assert.deepEqual(await world.axe(guest), [], "a file's page");
    const [download] = await Promise.all([guest.waitForEvent("download"), guest.getByRole("link", { name: "Download" }).click()]);
    assert.equal(readFileSync(await download.path(), "utf8"), "for everybody <b>here</b>");
    await guest.goto(address);
    assert.deepEqual(await world.axe(guest), [], "a folder's page");
    const [zip] = await Promise.all([guest.waitForEvent("download"), guest.getByRole("link", { name: "Download all as a zip" }).click()]);
    assert.match(execFileSync("python3", ["-m", "zipfile", "-l", await zip.path()], { encoding: "utf8" }), /shared\/readme\.txt/);
    assert.equal((await guest.request.get(`${address}/raw/..%2fnot%20shared.txt`)).status(), 404);

    // A password, after the fact: whoever is there already has to give it.
    await page.locator(".link-item").getByRole("button", { name: /^Change the link/ }).click();
    const change = page.locator("dialog").last();
    await change.locator('[name="password"]').fill("open sesame");
    await change.getByRole("button", { name: "Save" }).click();
    await page.locator(".link-item", { hasText: "password" }).waitFor();
    await guest.goto(address);
    assert.doesNotMatch(await guest.content(), /readme|og:title/);
    assert.deepEqual(await world.axe(guest), [], "the page of a locked link");
    await guest.fill('input[name="password"]', "open says me");
    await guest.keyboard.press("Enter");
    await guest.getByRole("alert").waitFor();
    await guest.fill('input[name="password"]', "open sesame");
    await guest.keyboard.press("Enter");
    await guest.getByRole("link", { name: "readme.txt" }).waitFor();

    await page.locator(".link-item").getByRole("button", { name: /^End link:/ }).click();
    await page.locator("dialog").last().getByRole("button", { name: "End link" }).click();
    await page.locator(".link-item").waitFor({ state: "detached" });
    await guest.goto(address);
    await guest.getByText("This link has ended.").waitFor();
    assert.equal((await guest.request.get(`${address}/raw/readme.txt`)).status(), 410);
    assert.deepEqual([...page.troubles, ...guest.troubles], []);
    await guest.context().close();
    await page.context().close();
  });

  test("through a link for uploads files come in, and nothing is seen", async () => {
    mkdirSync(world.file("inbox"));
    writeFileSync(world.file("inbox/here before.txt"), "mine");
    world.settle();
    const page = await world.page();
    await row(page, "inbox").waitFor();
    await openLinks(page, "inbox");
    const address = await makeLink(world, page, { kind: "upload" });
    const guest = await stranger(world);
    await guest.goto(address);
    assert.doesNotMatch(await guest.content(), /here before/);
    assert.deepEqual(await world.axe(guest), [], "the page for uploads");
    const large = Buffer.alloc(5 * 1024 * 1024, "large ");
    await guest.setInputFiles("#files", [
      { name: "here before.txt", mimeType: "text/plain", buffer: Buffer.from("theirs") },
      { name: "large.bin", mimeType: "application/octet-stream", buffer: large },
    ]);
    await guest.getByRole("button", { name: "Send" }).click();
    await guest.locator("#sent li", { hasText: "large.bin: sent" }).waitFor();
    await until("the files are on disk", () => world.exists("inbox/here before (2).txt") && world.exists("inbox/large.bin"));
    assert.equal(readFileSync(world.file("inbox/here before.txt"), "utf8"), "mine");
    assert.equal(readFileSync(world.file("inbox/here before (2).txt"), "utf8"), "theirs");
    assert.ok(readFileSync(world.file("inbox/large.bin")).equals(large));
    assert.deepEqual([...page.troubles, ...guest.troubles], []);
    await guest.context().close();
    await page.context().close();
  });

  test("all links are on one page, and a selection is saved as one archive", async () => {
    writeFileSync(world.file("1 zip.txt"), "one");
    writeFileSync(world.file("2 zip.txt"), "two");
    world.settle();
    const page = await world.page();
    await row(page, "1 zip.txt").locator(".row-check").click();
    await row(page, "2 zip.txt").locator(".row-check").click();
    const [archive] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download as zip" }).click()]);
    const list = execFileSync("python3", ["-m", "zipfile", "-l", await archive.path()], { encoding: "utf8" });
    assert.match(list, /1 zip\.txt/);
    assert.match(list, /2 zip\.txt/);
    await page.getByRole("button", { name: "Clear selection" }).click();
    await openLinks(page, "1 zip.txt");
    const address = await makeLink(world, page, { limit: 1 });
    await page.keyboard.press("Escape");
    await page.goto(`${world.url}/#/links`);
    const item = page.locator(".link-item", { hasText: "1 zip.txt" });
    await item.waitFor();
    await becomes(true, async () => /0 of 1 downloads/.test(await item.textContent()));
    assert.deepEqual(await world.axe(page), [], "the page of links");
    const guest = await stranger(world);
    assert.equal((await guest.request.get(`${address}/raw/1%20zip.txt`)).status(), 200);
    await guest.goto(address);
    await guest.getByText("was used as often as it may be").waitFor();
    await guest.context().close();
    // By keyboard alone: the button is reached, and the question is answered.
    await item.getByRole("button", { name: /^End link:/ }).focus();
    await page.keyboard.press("Enter");
    await page.locator("dialog").getByRole("button", { name: "End link" }).waitFor();
    await page.keyboard.press("Enter");
    await item.waitFor({ state: "detached" });
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });
}
