// Figures of the web client in Chromium against a real relay on this machine: how much and how long a first view is, how a long list scrolls, how fast
// files go up. Run by `tests/web/run --bench`; with a release build for figures that count.

import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { Harness, PASSWORD, until } from "./harness.mjs";

const ENTRIES = 10_000;
const LARGE_MB = Number(process.env.FERRY_BENCH_MB ?? 512);
const SMALL = 200;
const VIEWS = 7;

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const spread = (values) => `${median(values).toFixed(0)} ms (${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)})`;
const say = (what, value) => console.log(`${what.padEnd(58)} ${value}`);

/** The first view: what comes over the wire, and how long until the list is there, with nothing kept. */
async function firstView(world) {
  const times = [];
  const again = [];
  let bytes = 0;
  for (let i = 0; i < VIEWS; i += 1) {
    const page = await world.page({ login: false });
    // Logged in without the client, so that none of its files is there yet.
    const { access_token: token } = await (await page.request.post(`${world.url}/auth/login`, { data: { email: world.email, password: PASSWORD } })).json();
    await page.context().setExtraHTTPHeaders({ authorization: `Bearer ${token}` });
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    bytes = 0;
    const ours = new Set();
    session.on("Network.responseReceived", ({ requestId, response }) => {
      if (/\/assets\/|\/$/.test(new URL(response.url).pathname)) ours.add(requestId);
    });
    session.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
      if (ours.has(requestId)) bytes += encodedDataLength;
    });
    // Looked for inside the page, so that nothing of the way to this program counts: when the frame that holds the list has been drawn.
    await page.addInitScript(() => {
      const watch = new MutationObserver(() => {
        if (!document.querySelector(".grid-row, .empty")) return;
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => { globalThis.seenAt = performance.now(); }));
      });
      watch.observe(document, { childList: true, subtree: true });
    });
    const seen = async () => (await page.waitForFunction(() => globalThis.seenAt)).jsonValue();
    await page.goto(`${world.url}/`, { waitUntil: "commit" });
    times.push(await seen());
    const first = bytes;
    await page.reload({ waitUntil: "commit" });
    again.push(await seen());
    bytes = first;
    await page.context().close();
  }
  say("first view, its files with their headers, compressed", `${(bytes / 1000).toFixed(1)} kB`);
  say(`first view, until the list is seen (median of ${VIEWS})`, spread(times));
  say(`the same again, files kept by the browser (median of ${VIEWS})`, spread(again));
}

/** Scrolls a directory of many entries from its beginning to its end. */
async function scroll(world, page, tiles) {
  await page.goto(`${world.url}/#/files`);
  await page.evaluate((on) => localStorage.setItem("ferry.view", JSON.stringify({ sort: "name", descending: false, tiles: on })), tiles);
  await page.reload();
  const begun = Date.now();
  await page.locator(".row-name", { hasText: "many" }).click();
  await page.locator(".status-line", { hasText: "10,000" }).waitFor();
  if (!tiles) say(`${ENTRIES} entries, until all are known`, `${Date.now() - begun} ms`);
  const frames = await page.evaluate(() => new Promise((go) => {
    const grid = document.querySelector(".grid");
    const times = [];
    let before = performance.now();
    const step = (now) => {
      times.push(now - before);
      before = now;
      const left = grid.scrollHeight - grid.clientHeight - grid.scrollTop;
      if (left <= 1 || times.length > 400) return go(times.slice(1));
      grid.scrollTop += Math.max(1500, grid.scrollHeight / 300);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }));
  const long = frames.filter((time) => time > 34).length;
  const sorted = [...frames].sort((a, b) => a - b);
  say(`${ENTRIES} entries scrolled, ${tiles ? "tiles" : "rows"}: frames`, `${frames.length}, median ${median(frames).toFixed(1)} ms, 99 % ${sorted[Math.floor(sorted.length * 0.99)].toFixed(1)} ms, ${long} over 34 ms`);
}

/** How fast files go up, by the page's own means. */
async function upload(world, page, what, files) {
  await page.goto(`${world.url}/#/files`);
  await page.locator(".tools .primary").waitFor();
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const chooser = page.waitForEvent("filechooser");
  await page.locator(".tools .primary").click();
  await page.getByRole("menuitem", { name: "Upload files" }).click();
  const chosen = await chooser;
  const begun = Date.now();
  await chosen.setFiles(files.map((file) => file.path));
  await until("all are there", async () => {
    const states = await page.locator(".upload-list li").evaluateAll((all) => all.map((one) => one.dataset.state));
    if (states.some((state) => ["failed", "same"].includes(state))) throw new Error(`${states}`);
    return states.length > 0 && states.every((state) => state === "done");
  }, 600_000);
  const seconds = (Date.now() - begun) / 1000;
  say(what, `${(bytes / 1e6 / seconds).toFixed(1)} MB/s, ${(files.length / seconds).toFixed(1)} files/s (${seconds.toFixed(1)} s)`);
  await page.reload();
}

function source(world, name, size) {
  const path = `${world.dir}/source/${name}`;
  const block = randomBytes(1 << 20);
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += block.length) {
    block.writeUInt32LE(at / block.length, 0);
    block.copy(bytes, at, 0, Math.min(block.length, size - at));
  }
  writeFileSync(path, bytes);
  return { path, size };
}

const world = new Harness();
try {
  await world.open();
  world.email = "bench@example.org";
  world.addUser(world.email);
  await firstView(world);
  const page = await world.page({ email: world.email, viewport: { width: 1280, height: 800 } });
  // Made by the API, without a device.
  await page.evaluate(async (count) => {
    const { csrf_token: token } = await (await fetch("/api/v1/me/browser")).json();
    const { spaces } = await (await fetch("/api/v1/spaces")).json();
    const run = async (actions) => {
      const answer = await fetch("/api/v1/files/batch", { method: "POST", headers: { "content-type": "application/json", "x-csrf-token": token }, body: JSON.stringify({ space_id: spaces[0].space_id, actions }) });
      if (!answer.ok) throw new Error(await answer.text());
    };
    await run([{ action: "mkdir", path: "/", file_name: "many" }]);
    for (let at = 0; at < count; at += 1000) {
      await run(Array.from({ length: 1000 }, (_, i) => ({ action: "mkdir", path: "/many", file_name: `entry ${at + i}` })));
    }
  }, ENTRIES);
  await scroll(world, page, false);
  await scroll(world, page, true);
  mkdirSync(`${world.dir}/source`);
  await upload(world, page, `one file of ${LARGE_MB} MiB`, [source(world, "large.bin", LARGE_MB << 20)]);
  rmSync(`${world.dir}/source/large.bin`);
  await upload(world, page, "eight files of 16 MiB", Array.from({ length: 8 }, (_, i) => source(world, `middle ${i}.bin`, 16 << 20)));
  await upload(world, page, `${SMALL} files of 20 KiB`, Array.from({ length: SMALL }, (_, i) => source(world, `small ${i}.bin`, 20 << 10)));
} finally {
  await world.close();
}
