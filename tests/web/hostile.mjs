// Names and files that want to be more than names and files, and pages that are not ours (R46, R47, R50, R51, R70).

import { test } from "node:test";
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { becomes, drop, row, until } from "./harness.mjs";

const NAMES = [
  "<img src=x onerror=globalThis.hit=1>.txt",
  "javascript:globalThis.hit=1.txt",
  "{{constructor.constructor('globalThis.hit=1')()}}.txt",
  "evil\u202egpj.exe",
  "\"><script>globalThis.hit=1<\u2215script>.txt",
  "line\nbreak.txt",
  " leading and trailing .txt ",
];
const SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="parent.hit=1"><script>parent.hit=1;globalThis.hit=1</script><circle r="4"/></svg>';
const HTML = "<!doctype html><script>parent.hit=1;globalThis.hit=1</script><h1>html</h1>";

export function tests(world) {
  test("hostile names are text, wherever they stand", async () => {
    for (const name of NAMES) writeFileSync(world.file(name), name);
    world.settle();
    const page = await world.page();
    await page.locator(".row-name", { hasText: "javascript:" }).waitFor();
    await becomes(1, () => page.locator(".row-name", { hasText: "<img src=x" }).count());
    const texts = await page.locator(".row-name").allTextContents();
    assert.ok(texts.every((text) => !/[\u202a-\u202e\u2066-\u2069\n]/.test(text)), "nothing turns the text around");
    for (const part of ["<img src=x", "javascript:", "{{constructor"]) {
      await page.locator(".row-name", { hasText: part }).click();
      await page.locator(".stage pre", { hasText: part }).waitFor();
      await page.keyboard.press("Escape");
      await page.locator("dialog").waitFor({ state: "detached" });
    }
    await page.locator(".grid-row", { hasText: "<img src=x" }).locator(".row-check").click();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.locator(".toast", { hasText: "<img src=x" }).waitFor();
    await page.getByRole("link", { name: "Trash" }).click();
    await page.locator(".rows strong", { hasText: "<img src=x" }).waitFor();
    assert.equal(await page.evaluate(() => globalThis.hit), undefined);
    assert.equal(await page.locator("main img").count(), 0);
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("files that hold scripts never run in this place", async () => {
    const page = await world.page();
    await drop(page, { "script.svg": SVG, "page.html": HTML, "page.xml": HTML, "not-a-picture.png": HTML });
    await row(page, "script.svg").waitFor();
    await row(page, "not-a-picture.png").waitFor();
    await page.getByRole("button", { name: "Show as tiles" }).click();
    await page.locator(".grid-row", { hasText: "script.svg" }).locator("img").waitFor();
    await page.locator(".grid-row", { hasText: "not-a-picture.png" }).locator(".tile-picture svg").waitFor();
    await page.getByRole("button", { name: "Show as list" }).click();
    await page.locator(".row-name", { hasText: "script.svg" }).click();
    await page.locator(".stage img").waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".row-name", { hasText: "page.html" }).click();
    await page.locator(".stage pre", { hasText: "<!doctype html>" }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".row-name", { hasText: "not-a-picture.png" }).click();
    await page.locator(".stage", { hasText: "cannot be shown" }).waitFor();
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => globalThis.hit), undefined);
    assert.deepEqual(page.troubles, []);
    // Opened by its address it is a download, and its policy is a sandbox.
    const links = await page.evaluate(async () => (await (await fetch("/metadata/files?path=/&limit=1000")).json()).files.map((f) => [f.file_name, f.file_id]));
    for (const [name, id] of links.filter(([name]) => ["script.svg", "page.html", "page.xml"].includes(name))) {
      const headers = await page.evaluate(async (path) => {
        const answer = await fetch(path);
        return ["content-disposition", "content-security-policy", "x-content-type-options", "cache-control"].map((header) => answer.headers.get(header));
      }, `/download/${id}`);
      assert.match(headers[0], /^attachment/, name);
      assert.match(headers[1], /sandbox/, name);
      assert.deepEqual(headers.slice(2), ["nosniff", "private, no-store"], name);
    }
    await page.context().close();
  });

  test("the page's policy is strict, and the page keeps it", async () => {
    const page = await world.page();
    const answer = await page.request.get(`${world.url}/`);
    const csp = answer.headers()["content-security-policy"];
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"]) assert.ok(csp.includes(part), part);
    assert.ok(!csp.includes("unsafe"));
    assert.equal(answer.headers()["x-content-type-options"], "nosniff");
    const refused = await page.evaluate(() => {
      const script = document.createElement("script");
      try {
        script.textContent = "globalThis.hit = 1";
        document.body.append(script);
      } catch {
        return "refused";
      }
      return globalThis.hit;
    });
    assert.ok(refused === "refused" || refused === undefined, "a script that is written into the page does not run");
    const cookies = await page.context().cookies();
    assert.ok(cookies.length && cookies.every((cookie) => cookie.httpOnly && cookie.sameSite !== "None"));
    assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((key) => /token|jwt|session|csrf/i.test(key))), []);
    await page.context().close();
  });

  test("what changes something needs a page of ours", async () => {
    const page = await world.page();
    const statuses = await page.evaluate(async () => {
      const body = JSON.stringify({ actions: [{ action: "mkdir", path: "/", file_name: "forged" }] });
      const tries = [{}, { "x-csrf-token": "0".repeat(64) }];
      return Promise.all(tries.map(async (headers) => (await fetch("/api/v1/files/batch", { method: "POST", body, headers: { "content-type": "application/json", ...headers } })).status));
    });
    assert.deepEqual(statuses, [403, 403]);
    await page.reload();
    await page.waitForSelector(".grid-row");
    assert.equal(await row(page, "forged").count(), 0);
    await page.context().close();
  });

  test("after a logout nothing of the person stays in the browser", async () => {
    world.addUser("bob@example.org");
    const page = await world.page();
    await drop(page, { "secret-of-anna.txt": "anna's words" });
    await row(page, "secret-of-anna.txt").waitFor();
    await until("the service worker is there", () => page.evaluate(async () => Boolean(await navigator.serviceWorker.getRegistration())));
    // Nothing but the shell is ever kept.
    const kept = () => page.evaluate(async () => {
      const urls = [];
      for (const name of await caches.keys()) for (const request of await (await caches.open(name)).keys()) urls.push(new URL(request.url).pathname);
      return urls;
    });
    await until("the shell is kept", async () => (await kept()).length > 5);
    assert.deepEqual((await kept()).filter((path) => path !== "/" && !path.startsWith("/assets/")), []);
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.waitForSelector('input[name="password"]');
    await becomes(0, async () => (await page.context().cookies()).filter((cookie) => /session/.test(cookie.name)).length);
    await page.goto(`${world.url}/`);
    await page.waitForSelector('input[name="password"]');
    await world.login(page, "bob@example.org");
    await page.getByText("No files yet").waitFor();
    assert.equal(await page.getByText("secret-of-anna").count(), 0);
    assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes("anna"));
    await page.context().close();
  });
}
