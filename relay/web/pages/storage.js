// What the storage goes to: files, older versions, trash; and what is saved, because equal parts are stored once and devices nearby give each other what they have.

import { get } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { href } from "../lib/router.js";
import { failure, page } from "../ui/controls.js";

export function create(shell, life) {
  shell.title(t("storage.title"));
  const content = h("div", { class: "cards" });

  async function load() {
    try {
      const [storage, { devices }] = await Promise.all([get("/api/v1/me/storage"), get("/api/v1/devices").catch(() => ({ devices: [] }))]);
      draw(storage, devices);
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  function draw({ storage_used: used, storage_limit: limit, spaces }, devices) {
    const sum = (name) => spaces.reduce((all, space) => all + space[name], 0);
    const parts = [["files", sum("file_bytes"), sum("files")], ["versions", older(sum), Math.max(0, sum("versions") - sum("files") - sum("trash"))], ["trash", sum("trash_bytes"), sum("trash")]];
    const whole = parts.reduce((all, [, bytes]) => all + bytes, 0);
    const saved = Math.max(0, whole - used);
    const lan = devices.reduce((all, device) => all + (device.now?.lan_received_bytes ?? 0), 0);
    const meter = limit && h("meter", { min: 0, max: 1, low: 0.8, high: 0.95, optimum: 0, value: String(Math.min(1, used / limit)), "aria-label": t("storage.label") });
    replace(content,
      h("section", { class: "card" }, h("h2", null, limit ? t("storage.of", { used: size(used), limit: size(limit) }) : t("storage.used", { used: size(used) })), meter,
        whole > 0 && h("div", { class: "bar-parts", "aria-hidden": "true" }, parts.filter(([, bytes]) => bytes > 0).map(([name, bytes]) => part(name, bytes / whole))),
        h("ul", { class: "rows parts" }, parts.map(([name, bytes, count]) => h("li", null, h("span", { class: `dot part-${name}` }),
          h("div", { class: "rows-main" }, h("strong", null, name === "trash" ? h("a", { href: href("trash") }, t("storage.trash")) : t(`storage.${name}`)), h("span", { class: "soft" }, t(`storage.count.${name}`, { count }))),
          h("span", null, size(bytes)))))),
      h("section", { class: "card" }, h("h2", null, t("storage.saved")),
        h("dl", { class: "facts" },
          h("div", null, h("dt", null, t("storage.dedup")), h("dd", null, h("strong", null, size(saved)), saved > 0 && h("span", { class: "soft" }, t("storage.dedupText", { whole: size(whole), used: size(used) })))),
          h("div", null, h("dt", null, t("storage.lan")), h("dd", null, h("strong", null, size(lan)), h("span", { class: "soft" }, t("storage.lanText")))))),
      spaces.length > 1 && h("section", { class: "card" }, h("h2", null, t("storage.folders")), h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": t("storage.folders") }, h("table", null,
        h("thead", null, h("tr", null, ["storage.folder", "storage.files", "storage.versions", "storage.trash"].map((key) => h("th", { scope: "col" }, t(key))))),
        h("tbody", null, spaces.map((space) => h("tr", null, h("th", { scope: "row" }, shown(space.name)), [space.file_bytes, Math.max(0, space.version_bytes - space.file_bytes - space.trash_bytes), space.trash_bytes].map((bytes) => h("td", null, size(bytes))))))))));
  }

  const older = (sum) => Math.max(0, sum("version_bytes") - sum("file_bytes") - sum("trash_bytes"));

  function part(name, share) {
    const element = h("span", { class: `part-${name}` });
    // The policy of the page takes styles from scripts, not from attributes.
    element.style.flexGrow = String(share);
    return element;
  }

  life.add(shell.onChange(coalesced(load, 1000)));
  load();
  return { element: page(t("storage.title"), [], h("p", { class: "soft intro" }, t("storage.intro")), content) };
}
