// All public links of the person, and those into the person's folders.

import { get } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { emptyState, failure, page } from "../ui/controls.js";
import { linkItem } from "../share/link.js";

export function create(shell, life) {
  shell.title(t("nav.links"));
  const content = h("div", { class: "cards" });

  async function load() {
    try {
      const { links } = await get("/api/v1/links");
      replace(content, links.length
        ? h("ul", { class: "rows links" }, links.map((link) => linkItem(link, load, { title: link.path ?? t("link.state.gone") })))
        : emptyState("link", t("links.none"), t("links.how")));
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  life.add(shell.onChange(coalesced(load, 500)));
  load();
  return { element: page(t("nav.links"), [], content) };
}
