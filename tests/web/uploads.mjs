// Where uploads go and what is said of them, when the person or the network does not wait.

import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { drop, EMAIL, openFolder, PASSWORD, row, until } from "./harness.mjs";

const lists = (path) => (url) => url.pathname === "/metadata/files" && url.searchParams.get("path") === path;

export function tests(world) {
  test("a dropped folder goes to where it was dropped, wherever the person is when it has been read", async () => {
    for (const name of ["here", "elsewhere"]) {
      mkdirSync(world.file(name));
      writeFileSync(world.file(`${name}/there before.txt`), name);
    }
    world.settle();
    const page = await world.page();
    await row(page, "here").dblclick();
    await row(page, "there before.txt").waitFor();
    // A folder that is read only when the test says so; one of its directories cannot be read.
    await page.evaluate(() => {
      const file = { isFile: true, name: "late.txt", file: (done) => done(new File(["late"], "late.txt")) };
      const closed = { isFile: false, name: "closed", createReader: () => ({ readEntries: (_, refuse) => refuse(new DOMException("no", "NotReadableError")) }) };
      const portions = [[file, closed], []];
      const held = new Promise((resolve) => { globalThis.goOn = resolve; });
      const folder = { isFile: false, name: "slow", createReader: () => ({ readEntries: (done) => held.then(() => done(portions.shift())) }) };
      const event = new Event("drop", { bubbles: true, cancelable: true });
      Object.defineProperty(event, "dataTransfer", { value: { types: ["Files"], items: [{ kind: "file", webkitGetAsEntry: () => folder }] } });
      document.querySelector(".files").dispatchEvent(event);
    });
    await page.getByRole("navigation", { name: "Path" }).getByRole("link").first().click();
    await row(page, "elsewhere").dblclick();
    await row(page, "there before.txt").waitFor();
    await page.evaluate(() => globalThis.goOn());
    await page.waitForSelector(".uploads [data-state=done]");
    await page.locator(".uploads [data-state=failed]", { hasText: "Not all of this folder could be read" }).waitFor();
    assert.equal(await page.getByRole("button", { name: /^Try .* again$/ }).count(), 0);
    assert.deepEqual(await world.axe(page), []);
    await until("the file is on disk", () => world.exists("here/slow/late.txt"));
    assert.ok(!world.exists("elsewhere/slow"));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("what is dropped before the folders are known goes up when they are", async () => {
    const page = await world.page({ login: false, serviceWorkers: "block" });
    let open = null;
    const held = new Promise((resolve) => { open = resolve; });
    await page.route("**/sync/v1/namespaces", async (route) => {
      await held;
      await route.fallback();
    });
    await page.goto(`${world.url}/`);
    await page.fill('input[name="email"]', EMAIL);
    await page.fill('input[name="password"]', PASSWORD);
    await page.press('input[name="password"]', "Enter");
    await page.waitForSelector("#main");
    assert.deepEqual(await drop(page, { "early.txt": "dropped before anything was known" }, "#main"), [true, true, true]);
    assert.equal(await page.locator("#main > *").count(), 0);
    open();
    await page.waitForSelector(".uploads [data-state=done]");
    await row(page, "early.txt").waitFor();
    await until("the file is on disk", () => world.exists("early.txt"));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("what is dropped where nothing can be put is refused with a reason, and never opened by the browser", async () => {
    const page = await world.page();
    await row(page, "early.txt").waitFor();
    const taken = async (where) => assert.deepEqual(await drop(page, { "nowhere.txt": "a content that belongs nowhere" }, where), [true, true, true], where);
    for (const name of ["Trash", "Settings", "Search"]) {
      await page.goto(`${world.url}/#/${name.toLowerCase()}`);
      await page.getByRole("heading", { name, exact: true }).waitFor();
      await taken("#main");
      await page.locator(".toast", { hasText: "not here" }).waitFor();
      await page.locator(".toast").last().getByRole("button").click();
    }
    // Nor onto an open dialog; but wherever else beside a list, for its folder.
    await page.goto(`${world.url}/#/files`);
    await row(page, "early.txt").waitFor();
    await page.getByRole("button", { name: "Keyboard shortcuts" }).click();
    await page.locator("dialog[open]").waitFor();
    await taken("dialog");
    await page.keyboard.press("Escape");
    await page.locator("dialog[open]").waitFor({ state: "detached" });
    assert.equal(await page.locator(".uploads [data-state]").count(), 0);
    await taken("header.bar");
    await page.waitForSelector(".uploads [data-state=done]");
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a name that is taken is asked about also before the list has come", async () => {
    mkdirSync(world.file("long list"));
    writeFileSync(world.file("long list/taken.txt"), "first");
    world.settle();
    const page = await world.page();
    await row(page, "long list").waitFor();
    let held = null;
    const open = new Promise((resolve) => { held = resolve; });
    await page.route(lists("/long list"), async (route) => {
      await open;
      await route.fallback();
    }, { times: 1 });
    await row(page, "long list").dblclick();
    await page.getByRole("heading", { name: "long list" }).waitFor();
    await drop(page, { "taken.txt": "second" });
    await page.getByRole("button", { name: "Keep both" }).click();
    held();
    await row(page, "taken (2).txt").waitFor();
    await until("both are on disk", () => world.exists("long list/taken (2).txt"));
    assert.equal(readFileSync(world.file("long list/taken.txt"), "utf8"), "first");
    await page.context().close();
  });

  test("a list that could not be refreshed says so, and is asked for again", async () => {
    mkdirSync(world.file("restless"));
    writeFileSync(world.file("restless/one.txt"), "one");
    world.settle();
    const page = await world.page();
    await row(page, "restless").dblclick();
    await row(page, "one.txt").waitFor();
    let asked = 0;
    await page.route(lists("/restless"), (route) => {
      asked += 1;
      return asked <= 2 ? route.fulfill({ status: 503, contentType: "application/problem+json", body: "{}" }) : route.fallback();
    });
    writeFileSync(world.file("restless/two.txt"), "two");
    await page.locator(".status-line", { hasText: "could not be refreshed" }).waitFor();
    await row(page, "two.txt").waitFor();
    await page.locator(".status-line", { hasText: /^2 items · 6 bytes$/ }).waitFor();
    assert.ok(asked > 2);
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("what sends is asked for again when it did not come", async () => {
    mkdirSync(world.file("again"));
    world.settle();
    const page = await world.page({ login: false, serviceWorkers: "block" });
    await page.route("**/upload/{job,clash}.js", (route) => route.abort());
    await world.login(page);
    await openFolder(world, page, "again");
    await drop(page, { "one.txt": "a content that is nowhere else" });
    await page.waitForSelector(".uploads [data-state=done]");
    await until("the file is on disk", () => world.exists("again/one.txt"));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a large file that the relay has already need not be sent to its end", async () => {
    mkdirSync(world.file("large ones"));
    world.settle();
    const page = await world.page();
    await openFolder(world, page, "large ones");
    const source = `${world.dir}/large twice.bin`;
    writeFileSync(source, Buffer.alloc(66 * 1024 * 1024, "late"));
    const upload = async (file) => {
      const chooser = page.waitForEvent("filechooser");
      await page.getByRole("button", { name: "New" }).click();
      await page.getByRole("menuitem", { name: "Upload files" }).click();
      await (await chooser).setFiles(file);
    };
    await upload(source);
    await page.waitForSelector(".uploads [data-state=done]", { timeout: 120_000 });
    // Now no chunk arrives, however long: only by its hash can it be over.
    await page.route("**/chunks/*", () => {});
    renameSync(source, `${world.dir}/large again.bin`);
    await upload(`${world.dir}/large again.bin`);
    await page.waitForSelector(".uploads [data-state=same]", { timeout: 120_000 });
    await row(page, "large again.bin").waitFor();
    await until("both are on disk", () => ["large twice.bin", "large again.bin"].every((name) => world.exists(`large ones/${name}`)), 120_000);
    assert.ok(readFileSync(world.file("large ones/large again.bin")).equals(readFileSync(`${world.dir}/large again.bin`)));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });
}
