// The web client in Chromium against a real relay and a real device. Run by `tests/web/run`.

import { after, before } from "node:test";
import { Harness } from "./harness.mjs";
import { tests as sync } from "./sync.mjs";
import { tests as hostile } from "./hostile.mjs";
import { tests as access } from "./access.mjs";
import { tests as links } from "./links.mjs";
import { tests as sharing } from "./sharing.mjs";
import { tests as uploads } from "./uploads.mjs";
import { tests as search } from "./search.mjs";
import { tests as overview } from "./overview.mjs";
import { tests as previews } from "./previews.mjs";
import { tests as history } from "./history.mjs";

const world = new Harness();

before(async () => {
  await world.open();
  await world.startDevice();
});
after(() => world.close());

sync(world);
hostile(world);
access(world);
links(world);
sharing(world);
uploads(world);
search(world);
overview(world);
previews(world);
history(world);
