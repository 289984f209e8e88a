// What is on the relay that `shots.mjs` draws: files of each kind, histories, what others share, links in each state, people in each state.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { drop, EMAIL, PASSWORD } from "./harness.mjs";
import { pdf, png, wav } from "./samples.mjs";

const MARKDOWN = "# Notes\n\nSome *text* with a [link](https://example.org).\n\n- [x] one\n- [ ] two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n```js\nconst a = 1; // one\n```\n";
const LONG_NAME = "a rather long name of a file that does not fit into a narrow screen, report of the third quarter.txt";

function files(world) {
  for (const name of ["Pictures", "Notes", "Inbox", "Inbox/Letters", "Pictures/Family"]) mkdirSync(world.file(name));
  for (let i = 0; i < 7; i += 1) {
    const [width, height] = [[600, 400], [300, 500], [900, 300]][i % 3];
    writeFileSync(world.file(`Pictures/holiday ${i + 1}.png`), png(width, height, (x, y) => [(x * (i + 1)) % 256, (y * 2 + i * 30) % 256, (x + y) % 256]));
  }
  const contents = {
    "Notes/readme.md": MARKDOWN,
    "Notes/main.rs": "//! A program.\n\nfn main() {\n    let greeting = \"Hello\";\n    println!(\"{greeting} {}\", 42);\n}\n".repeat(9),
    "Notes/long.log": Array.from({ length: 20_000 }, (_, i) => `2026-11-29 line ${i}`).join("\n"),
    "Notes/tone.wav": wav(20),
    "Notes/paper.pdf": pdf("A page of paper"),
    "Notes/data.bin": Buffer.alloc(70_000, 7),
    [LONG_NAME]: "text",
    "gone.txt": "gone",
    "plan.txt": "the plan",
    "story.txt": "one\ntwo\nthree\n",
  };
  for (const [name, content] of Object.entries(contents)) writeFileSync(world.file(name), content);
  world.settle();
  writeFileSync(world.file("story.txt"), "one\n2\nthree\nfour\n");
  rmSync(world.file("gone.txt"));
  world.settle();
}

/** Asks the relay as the person of this page. */
const ask = (page, method, path, json) => page.evaluate(async ([how, to, body]) => {
  const { csrf_token: token } = await (await fetch("/api/v1/me/browser")).json();
  const answer = await fetch(to, { method: how, headers: { "content-type": "application/json", "x-csrf-token": token }, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${to}: ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
}, [method, path, json]);

/** An invitation, a folder and a file of somebody else. */
async function others(world) {
  const bob = await world.page({ email: "bob@example.com" });
  const [home] = (await ask(bob, "GET", "/api/v1/spaces")).spaces;
  await ask(bob, "POST", "/api/v1/files/batch", { actions: [{ action: "mkdir", path: "/", file_name: "Recipes" }] });
  await ask(bob, "POST", "/api/v1/shares", { space_id: home.space_id, email: EMAIL, role: "editor" });
  await bob.context().close();
  const dora = await world.page({ email: "dora@example.net" });
  await drop(dora, { "a letter to Anna.txt": "Dear Anna" });
  await dora.waitForSelector(".uploads [data-state=done]");
  const [hers] = (await ask(dora, "GET", "/api/v1/spaces")).spaces;
  const [letter] = (await ask(dora, "GET", "/metadata/files?path=/")).files;
  await ask(dora, "POST", "/api/v1/shares", { space_id: hers.space_id, file_id: letter.file_id, email: EMAIL, role: "viewer" });
  return dora;
}

/** A second factor for her. */
async function secondFactor(page, totp) {
  const { secret } = await ask(page, "POST", "/api/v1/me/totp", { password: PASSWORD });
  await ask(page, "POST", "/api/v1/me/totp/confirm", { code: totp(secret) });
  await page.context().close();
}

/** Paths of links by what they are. */
async function links(page) {
  const wanted = {
    folder: { path: "/Pictures" },
    locked: { path: "/Notes", password: "open sesame", expires_in: 604_800 },
    view: { path: "/Pictures", kind: "view", max_downloads: 12 },
    upload: { path: "/Inbox", kind: "upload" },
    file: { path: "/plan.txt" },
    empty: { path: "/Inbox/Letters" },
    ended: { path: "/story.txt" },
    used: { path: "/story.txt", max_downloads: 1 },
  };
  const paths = {};
  for (const [name, body] of Object.entries(wanted)) {
    const { link } = await ask(page, "POST", "/api/v1/links", body);
    paths[name] = new URL(link.url).pathname;
    if (name === "ended") await ask(page, "DELETE", `/api/v1/links/${link.link_id}`);
    if (name === "used") await page.request.get(`${new URL(page.url()).origin}${paths.used}/raw/story.txt`);
  }
  return paths;
}

/** A file that two changed at once. */
async function conflict(world, page) {
  world.daemon.kill("SIGSTOP");
  writeFileSync(world.file("plan.txt"), "the device's plan");
  await drop(page, { "plan.txt": "the browser's plan" });
  await page.locator("dialog .button").last().click();
  await page.waitForSelector(".uploads [data-state=done]");
  world.daemon.kill("SIGCONT");
  world.settle();
}

/** Makes all of it; gives the paths of the links. */
export async function furnish(world, totp) {
  for (const email of ["bob@example.com", "carla@example.net", "dora@example.net"]) world.addUser(email);
  await world.startDevice();
  files(world);
  const dora = await others(world);
  await secondFactor(dora, totp);
  const anna = await world.page();
  const [home] = (await ask(anna, "GET", "/api/v1/spaces")).spaces;
  await ask(anna, "POST", "/api/v1/shares", { space_id: home.space_id, email: "bob@example.com", role: "viewer" });
  const paths = await links(anna);
  await conflict(world, anna);
  await anna.context().close();
  return paths;
}
