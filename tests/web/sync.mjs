// Between browser and disk: what is done here appears there, and the other way.

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { becomes, drop, row, until } from "./harness.mjs";

export function tests(world) {
  test("a click in the middle of a refresh hits the row it was meant for", async () => {
    writeFileSync(world.file("aimed at.txt"), "the aim");
    world.settle();
    const page = await world.page();
    const box = await row(page, "aimed at.txt").locator(".row-name").boundingBox();
    await page.mouse.move(box.x + 10, box.y + box.height / 2);
    await page.mouse.down();
    writeFileSync(world.file("zz comes meanwhile.txt"), "another");
    world.settle();
    await row(page, "zz comes meanwhile.txt").waitFor();
    await page.mouse.up();
    await page.locator(".stage pre", { hasText: "the aim" }).waitFor();
    await page.context().close();
  });

  test("a file dropped in the browser appears in the folder on disk, and a change on disk in the open page", async () => {
    const page = await world.page();
    await drop(page, { "dropped.txt": "from the browser" });
    await page.waitForSelector(".uploads [data-state=done]");
    await row(page, "dropped.txt").waitFor();
    await until("the file is on disk", () => world.exists("dropped.txt"));
    assert.equal(readFileSync(world.file("dropped.txt"), "utf8"), "from the browser");

    writeFileSync(world.file("from-disk.txt"), "from the disk");
    await row(page, "from-disk.txt").waitFor();
    rmSync(world.file("from-disk.txt"));
    await row(page, "from-disk.txt").waitFor({ state: "detached" });

    // The same bytes again cost nothing.
    await drop(page, { "again.txt": "from the browser" });
    await page.waitForSelector(".uploads [data-state=same]");
    await until("the copy is on disk", () => world.exists("again.txt"));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a name that is taken is asked about: both, or a new version", async () => {
    const page = await world.page();
    await drop(page, { "clash.txt": "first" });
    await row(page, "clash.txt").waitFor();
    await drop(page, { "clash.txt": "second" });
    await page.getByRole("button", { name: "Keep both" }).click();
    await row(page, "clash (2).txt").waitFor();
    await drop(page, { "clash.txt": "third" });
    await page.getByRole("button", { name: "New version" }).click();
    await until("the new version is on disk", () => world.exists("clash.txt") && readFileSync(world.file("clash.txt"), "utf8") === "third");
    await until("both are on disk", () => world.exists("clash (2).txt") && readFileSync(world.file("clash (2).txt"), "utf8") === "second");
    await page.context().close();
  });

  test("an old version is looked at and comes back, also on disk", async () => {
    writeFileSync(world.file("story.txt"), "the first telling");
    world.settle();
    writeFileSync(world.file("story.txt"), "the second telling, which is longer");
    world.settle();
    const page = await world.page();
    await row(page, "story.txt").locator(".row-check").click();
    await page.getByRole("button", { name: "Version history" }).click();
    const versions = page.locator(".versions > li");
    await until("two versions", async () => (await versions.count()) === 2);
    await becomes(true, async () => /LAPTOP/.test(await versions.first().textContent()));
    await versions.nth(1).getByRole("button", { name: "Preview" }).click();
    await page.locator(".stage pre", { hasText: "the first telling" }).waitFor();
    await page.keyboard.press("Escape");
    await versions.nth(1).getByRole("button", { name: "Restore" }).click();
    await until("three versions", async () => (await versions.count()) === 3);
    await until("the old text is on disk", () => readFileSync(world.file("story.txt"), "utf8") === "the first telling");
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a large upload goes on where it was when the relay is killed, and its bytes are right", async () => {
    const page = await world.page();
    const bytes = Buffer.alloc(40 * 1024 * 1024);
    for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE((i * 2654435761) >>> 0, i);
    const source = `${world.dir}/large.bin`;
    writeFileSync(source, bytes);
    let chunks = 0;
    // The relay dies after some chunks, and not before the first.
    let killed = null;
    page.on("response", (response) => {
      if (/\/upload\/[0-9a-f-]+\/chunks\//.test(response.url()) && response.ok()) {
        chunks += 1;
        if (chunks === 3) killed = world.killRelay();
      }
    });
    const chooser = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: "New" }).click();
    await page.getByRole("menuitem", { name: "Upload files" }).click();
    await (await chooser).setFiles(source);
    await page.waitForSelector(".uploads [data-state=offline]");
    await killed;
    await world.startRelay();
    await page.waitForSelector(".uploads [data-state=done]", { timeout: 120_000 });
    assert.ok(chunks <= 10 + 3, `${chunks} chunks of 10 were sent`);
    await until("the file is on disk", () => world.exists("large.bin") && readFileSync(world.file("large.bin")).equals(bytes), 120_000);
    await page.context().close();
  });

  test("an upload is paused and resumed by the person", async () => {
    const page = await world.page();
    const source = `${world.dir}/paused.bin`;
    writeFileSync(source, Buffer.alloc(24 * 1024 * 1024, "paused"));
    // No chunk arrives until the person has paused, so that there is something to pause.
    let held = true;
    await page.route("**/chunks/*", (route) => (held ? undefined : route.continue()));
    const chooser = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: "New" }).click();
    await page.getByRole("menuitem", { name: "Upload files" }).click();
    await (await chooser).setFiles(source);
    await page.getByRole("button", { name: "Pause paused.bin" }).click();
    await page.waitForSelector(".uploads [data-state=paused]");
    held = false;
    await page.getByRole("button", { name: "Resume paused.bin" }).click();
    await page.waitForSelector(".uploads [data-state=done]");
    await page.context().close();
  });

  test("what was changed in two places at once is settled by the person", async () => {
    writeFileSync(world.file("plan.txt"), "base");
    world.settle();
    const page = await world.page();
    await row(page, "plan.txt").waitFor();
    // The device does not hear of what the browser does: it is stopped while both sides change.
    world.daemon.kill("SIGSTOP");
    writeFileSync(world.file("plan.txt"), "the device's plan");
    await drop(page, { "plan.txt": "the browser's plan" });
    await page.getByRole("button", { name: "New version" }).click();
    await page.waitForSelector(".uploads [data-state=done]");
    world.daemon.kill("SIGCONT");
    await page.getByRole("link", { name: "Conflicts" }).click();
    const card = page.locator(".card", { hasText: "plan.txt" });
    await card.waitFor();
    await becomes(2, () => card.locator(".side").count());
    await card.getByRole("button", { name: "Keep both" }).click();
    await card.waitFor({ state: "detached" });
    world.settle();
    const both = ["the browser's plan", "the device's plan"];
    await page.goto(`${world.url}/#/files`);
    await until("both are files now", async () => (await page.locator(".row-name", { hasText: "plan" }).count()) === 2 && (await page.locator(".tag.warn").count()) === 0);
    await until("one of them is on disk", () => both.includes(readFileSync(world.file("plan.txt"), "utf8")));
    await page.context().close();
  });
}
