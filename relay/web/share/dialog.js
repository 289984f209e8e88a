// Sharing: one dialog, made of sections. Each says for itself what it does with what is shared.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { dialog } from "../ui/dialog.js";
import { links } from "./link.js";
import { people } from "./people.js";

/**
 * The sections, in their order. `section(target)` gives `{title, element}`, or null where it does not apply.
 * The target: `{space, entry, onChange}`; without an entry it is the whole folder. `onChange(listener)` tells of live changes and gives the way to end it.
 */
const SECTIONS = [people, links];

/** Shows the dialog; ends when it is closed. */
export function showSharing(target, sections = SECTIONS) {
  const name = target.entry ? target.entry.file_name : target.space.name;
  return dialog(t("share.title", { name: shown(name) }), () =>
    sections.map((section) => section(target)).filter(Boolean).map(({ title, element }) => h("section", { class: "share-section" }, h("h3", null, title), element)), { wide: true });
}
