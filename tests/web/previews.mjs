// Looking at files without saving them: pictures small and close, text in parts, Markdown, source code, sound, documents; by mouse and by keys.

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import { png, wav, pdf } from "./samples.mjs";
import { becomes, openFolder, rests, row, until } from "./harness.mjs";

const MARKDOWN = `# Plan

A **bold** step, [out](https://example.org/x) and [not a script](javascript:globalThis.hit=1).

- [x] done
- [ ] open

| a | b |
|---|--:|
| 1 | 2 |

<script>globalThis.hit = 1</script>

\`\`\`js
const answer = 42; // why
\`\`\`
`;

export function tests(world) {
  test("pictures are small in the list and close in the preview, and keys go from one to the next", async () => {
    mkdirSync(world.file("pictures"));
    writeFileSync(world.file("pictures/a wide.png"), png(900, 300, (x) => (x < 450 ? [200, 30, 30] : [30, 30, 200])));
    writeFileSync(world.file("pictures/b tall.png"), png(40, 80, () => [30, 160, 30]));
    writeFileSync(world.file("pictures/c broken.png"), "no picture at all");
    writeFileSync(world.file("pictures/d last.txt"), "the last one");
    world.settle();
    const page = await world.page();
    await openFolder(world, page, "pictures");
    const small = row(page, "a wide.png").locator(".thumbnail img");
    await becomes([256, 85], () => small.evaluate((image) => [image.naturalWidth, image.naturalHeight]));
    await row(page, "c broken.png").locator(".thumbnail svg").waitFor();
    await page.getByRole("button", { name: "Show as tiles" }).click();
    await row(page, "b tall.png").locator(".tile-picture img").waitFor();
    assert.deepEqual(await world.axe(page), [], "tiles");
    await page.getByRole("button", { name: "Show as list" }).click();

    await page.locator(".grid").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("Enter");
    const picture = page.locator(".zoom-frame img");
    await until("the picture is there", () => picture.evaluate((image) => image.naturalWidth === 900));
    assert.deepEqual(await world.axe(page), [], "a picture");
    const width = () => picture.evaluate((image) => image.getBoundingClientRect().width);
    const before = await rests(width);
    await page.getByRole("button", { name: "Larger" }).click();
    await until("it is larger", async () => await width() > before * 1.2);
    await page.locator(".zoom-frame").focus();
    await page.keyboard.press("+");
    await page.keyboard.press("+");
    await until("it can be moved about", () => page.locator(".zoom-frame").evaluate((frame) => frame.scrollWidth > frame.clientWidth));
    await page.keyboard.press("0");
    await becomes(Math.round(before), async () => Math.round(await width()));

    await page.keyboard.press("ArrowRight");
    await page.getByRole("heading", { name: "b tall.png" }).waitFor();
    await page.keyboard.press("ArrowRight");
    await page.locator(".stage", { hasText: "cannot be shown" }).waitFor();
    await page.keyboard.press("ArrowRight");
    await page.locator(".stage pre", { hasText: "the last one" }).waitFor();
    await becomes(true, () => page.getByRole("button", { name: "Next file" }).isDisabled());
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("dialog").getByRole("button", { name: "Download" }).click()]);
    assert.equal(readFileSync(await download.path(), "utf8"), "the last one");
    await page.keyboard.press("ArrowLeft");
    await page.getByRole("heading", { name: "c broken.png" }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
    await becomes("grid", () => page.evaluate(() => document.activeElement.getAttribute("role")));
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  /** A style of previews that comes when the test says so, however long the page would wait; gives the way to say so. No service worker may ask for it. */
  const heldStyle = async (page) => {
    await page.evaluate(() => {
      const { setTimeout: later } = globalThis;
      globalThis.setTimeout = (what, ms, ...of) => later(what, ms === 2000 ? 1_000_000 : ms, ...of);
    });
    let come = null;
    const held = new Promise((go) => { come = go; });
    await page.route("**/styles/preview.css", async (route) => {
      await held;
      await route.fallback();
    });
    return come;
  };

  test("a preview of a place that was left meanwhile does not open", async () => {
    mkdirSync(world.file("left"));
    writeFileSync(world.file("left/too late.txt"), "late");
    mkdirSync(world.file("left/further"));
    writeFileSync(world.file("left/further/in time.txt"), "timely");
    world.settle();
    const page = await world.page({ serviceWorkers: "block" });
    await openFolder(world, page, "left");
    const come = await heldStyle(page);
    const asked = page.waitForRequest("**/styles/preview.css");
    await row(page, "too late.txt").locator(".row-name").click();
    await asked;
    await row(page, "further").dblclick();
    await row(page, "in time.txt").waitFor();
    come();
    await until("the next one opens", async () => {
      if (await page.locator("dialog").count() === 0) await row(page, "in time.txt").locator(".row-name").click({ timeout: 2000 });
      return await page.locator("dialog").count();
    });
    await page.locator(".stage pre", { hasText: "timely" }).waitFor();
    assert.equal(await page.locator("dialog").count(), 1);
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a name that is clicked twice opens one preview, and its style comes first", async () => {
    mkdirSync(world.file("clicks"));
    writeFileSync(world.file("clicks/clicked twice.txt"), "once");
    world.settle();
    const page = await world.page({ serviceWorkers: "block" });
    await openFolder(world, page, "clicks");
    const come = await heldStyle(page);
    await row(page, "clicked twice.txt").locator(".row-name").dblclick();
    await row(page, "clicked twice.txt").locator(".row-name").click();
    come();
    await page.locator(".stage pre", { hasText: "once" }).waitFor();
    assert.equal(await page.locator("dialog").count(), 1);
    assert.deepEqual(await world.axe(page), [], "a preview");
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("Markdown is elements, its source has lines, and nothing of it runs", async () => {
    mkdirSync(world.file("markdown"));
    writeFileSync(world.file("markdown/plan of markdown.md"), MARKDOWN);
    world.settle();
    const page = await world.page();
    await openFolder(world, page, "markdown");
    await page.locator(".row-name", { hasText: "plan of markdown.md" }).click();
    const shown = page.locator(".markdown");
    await shown.getByRole("heading", { name: "Plan" }).waitFor();
    await becomes([["out", "https://example.org/x", "noopener noreferrer"]], () => shown.locator("a").evaluateAll((links) => links.map((link) => [link.textContent, link.getAttribute("href"), link.rel])));
    assert.equal(await shown.locator("script").count(), 0);
    await shown.locator("pre", { hasText: "<script>globalThis.hit = 1</script>" }).waitFor();
    await becomes(["1", "2"], () => shown.locator("td").allTextContents());
    await becomes(1, () => shown.locator(".code-keyword", { hasText: "const" }).count());
    await becomes(1, () => shown.getByRole("img", { name: "done", exact: true }).count());
    assert.deepEqual(await world.axe(page), [], "Markdown");
    await page.getByRole("button", { name: "Source" }).click();
    await page.locator(".stage .line", { hasText: "# Plan" }).waitFor();
    await becomes(MARKDOWN.split("\n").length - 1, () => page.locator(".stage .line").count());
    await page.getByRole("button", { name: "Formatted" }).click();
    await shown.waitFor();
    assert.equal(await page.evaluate(() => globalThis.hit), undefined);
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("a long text comes in parts, source code in colours, and what has no ending is looked at", async () => {
    const lines = Array.from({ length: 40_000 }, (_, i) => `line ${i + 1} ä€😀`);
    mkdirSync(world.file("texts"));
    writeFileSync(world.file("texts/long.log"), lines.join("\n"));
    writeFileSync(world.file("texts/code.rs"), "/* of\ntwo lines */\nfn main<'a>() { let x = \"<b>\"; }\n");
    writeFileSync(world.file("texts/LICENSE"), "as you like");
    writeFileSync(world.file("texts/program"), Buffer.from([0x7f, 0x45, 0x4c, 0x46, 0, 1, 2, 3]));
    world.settle();
    const page = await world.page();
    await openFolder(world, page, "texts");
    await page.locator(".row-name", { hasText: "long.log" }).click();
    const shown = page.locator(".stage pre");
    await page.locator(".line", { hasText: /^line 1 / }).waitFor();
    let text = await shown.textContent();
    const where = page.locator(".stage-tools [role=status]", { hasText: /^Part 1 of \d/ });
    const parts = Number(/of (\d+)/.exec(await where.textContent())[1]);
    assert.ok(parts > 3, `${parts}`);
    assert.deepEqual(await world.axe(page), [], "a long text");
    for (let part = 2; part <= parts; part += 1) {
      await page.getByRole("button", { name: "Next part" }).click();
      await page.getByText(`Part ${part} of ${parts}`).waitFor();
      // The end of a part's last line stands in the next one.
      text = text.replace(/\n$/, "") + (await shown.textContent());
    }
    assert.equal(text.replace(/\n/g, ""), lines.join(""));
    await until("lines are counted to the end", () => shown.evaluate((pre) => Number(getComputedStyle(pre.querySelector("code")).getPropertyValue("--first")) > 30_000));
    await page.getByRole("button", { name: "First part" }).click();
    await page.locator(".line", { hasText: /^line 1 / }).waitFor();
    await page.keyboard.press("Escape");

    await page.locator(".row-name", { hasText: "code.rs" }).click();
    await page.locator(".line", { hasText: "fn main" }).waitFor();
    await becomes([
      ["code-comment", "/* of"], ["code-comment", "two lines */"], ["code-keyword", "fn"], ["code-keyword", "let"], ["code-string", "\"<b>\""],
    ], () => page.locator(".stage [class^=code-]").evaluateAll((all) => all.map((one) => [one.className, one.textContent])));
    assert.deepEqual(await world.axe(page), [], "source code");
    await page.keyboard.press("Escape");
    await page.locator(".row-name", { hasText: "LICENSE" }).click();
    await page.locator(".stage pre", { hasText: "as you like" }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".row-name", { hasText: "program" }).click();
    await page.locator(".stage", { hasText: "no preview" }).waitFor();
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  test("sound is sought in without being fetched whole, and a document opens in the browser's viewer", async () => {
    mkdirSync(world.file("media"));
    writeFileSync(world.file("media/tone.wav"), wav(120));
    writeFileSync(world.file("media/paper.pdf"), pdf("A page of paper"));
    world.settle();
    const page = await world.page();
    await openFolder(world, page, "media");
    const answers = [];
    page.on("response", (response) => {
      if (response.url().includes("/download/")) answers.push(response.status());
    });
    await page.locator(".row-name", { hasText: "tone.wav" }).click();
    const sound = page.locator(".stage audio");
    await until("its length is known", () => sound.evaluate((audio) => Math.round(audio.duration) === 120));
    await sound.evaluate((audio) => new Promise((go) => {
      audio.addEventListener("seeked", go, { once: true });
      audio.currentTime = 100;
    }));
    await until("it can go on from there", () => sound.evaluate((audio) => audio.readyState >= 2 && audio.currentTime === 100));
    await until("its bytes were asked for", () => answers.length > 0);
    assert.ok(answers.every((status) => status === 206), `${answers}`);
    assert.deepEqual(await world.axe(page), [], "sound");
    await page.keyboard.press("Escape");

    await page.locator(".row-name", { hasText: "paper.pdf" }).click();
    if (await page.evaluate(() => navigator.pdfViewerEnabled)) {
      const viewer = page.locator(".stage iframe");
      await viewer.waitFor();
      const address = await viewer.getAttribute("src");
      assert.match(address, /^\/download\/[^?]+\?space_id=[^&]+&inline=1$/);
      await until("the viewer has taken it", () => answers.includes(200));
    } else await page.locator(".stage", { hasText: "no PDF by itself" }).waitFor();
    assert.deepEqual(await world.axe(page), [], "a document");
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });

  for (const [width, height] of [[320, 640], [1100, 700]]) {
    test(`previews fit at ${width} pixels, dark, in German`, async () => {
      const page = await world.page({ viewport: { width, height }, colorScheme: "dark", locale: "de-DE" });
      for (const [folder, name] of [["texts", "long.log"], ["pictures", "a wide.png"]]) {
        await openFolder(world, page, folder);
        await page.locator(".row-name", { hasText: name }).click();
        await page.locator(".stage-tools").waitFor();
        await becomes([0, 0], () => page.locator("dialog").evaluate((element) => [element.scrollWidth - element.clientWidth, document.documentElement.scrollWidth - innerWidth]));
        assert.deepEqual(await world.axe(page), [], name);
        await page.keyboard.press("Escape");
      }
      await page.context().close();
    });
  }
}
