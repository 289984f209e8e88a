// Styles that come late, or do not come. `node --test tests/web/unit`.

import { mock, test } from "node:test";
import assert from "node:assert/strict";

/** A page's head; its links come or fail at the test's word. */
const links = [];
globalThis.document = {
  createElement: () => Object.assign(new EventTarget(), { setAttribute() {}, remove() { links.splice(links.indexOf(this), 1); } }),
  head: { append: (link) => links.push(link) },
};

const { withStyle } = await import(new URL("../../../relay/web/lib/style.js", import.meta.url));

test("a style comes once, and one that did not come is asked for again", async () => {
  const first = withStyle("one");
  links[0].dispatchEvent(new Event("error"));
  await first;
  assert.equal(links.length, 0);
  const second = withStyle("one");
  assert.equal(links.length, 1);
  links[0].dispatchEvent(new Event("load"));
  await second;
  await withStyle("one");
  assert.equal(links.length, 1);
});

test("a style that stalls is waited for for a while only", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const stalled = withStyle("two");
  mock.timers.tick(2000);
  await stalled;
  await withStyle("two");
  assert.equal(links.length, 2);
  mock.timers.reset();
});
