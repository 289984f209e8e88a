// Conflicts: both sides, and which of them stays. Nothing is lost by a choice.

import { get, post, query } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { button, emptyState, failure, page } from "../ui/controls.js";
import { dialog } from "../ui/dialog.js";
import { toast, toastError } from "../ui/toast.js";
import { fill } from "../files/preview.js";

export function create(shell, life) {
  shell.title(t("nav.conflicts"));
  const content = h("div", { class: "cards" });

  async function load() {
    try {
      const found = [];
      for (const space of shell.spaces.get()) {
        const { conflicts } = await get(`/api/v1/conflicts${query({ space_id: space.id })}`);
        found.push(...conflicts.map((conflict) => ({ ...conflict, space })));
      }
      shell.conflicts.set(found.length);
      replace(content, found.length ? found.map(card) : emptyState("check", t("conflicts.none"), t("conflicts.noneText")));
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  const side = (label, file) => h("div", { class: "side" }, h("h3", null, label),
    file ? [h("p", { class: "side-name" }, shown(file.file_name)), h("p", { class: "soft" }, `${moment(file.modified_at ?? file.updated_at)} · ${size(file.file_size)}`),
      file.kind === "file" && button(t("action.preview"), () => look(file), { kind: "quiet" })] : h("p", { class: "soft" }, t("conflicts.gone")));

  const look = (file) => dialog(shown(file.file_name), (_, element) => {
    const stage = h("div", { class: "stage" });
    element.addEventListener("close", fill(stage, file));
    return stage;
  }, { wide: true, className: "preview" });

  function card(conflict) {
    const { current, copy, space } = conflict;
    const element = h("article", { class: "card" },
      h("h2", null, shown((current ?? copy).file_path)),
      h("div", { class: "sides" }, side(t("conflicts.current"), current), side(t("conflicts.copy"), copy)),
      space.role !== "viewer" && h("div", { class: "card-actions" },
        current && button(t("conflicts.keepCurrent"), () => settle("current")),
        current && button(t("conflicts.keepCopy"), () => settle("copy")),
        button(t("conflicts.keepBoth"), () => settle("both"), { kind: "primary" })));
    async function settle(keep) {
      const buttons = element.querySelectorAll(".card-actions button");
      buttons.forEach((one) => (one.disabled = true));
      try {
        await post("/api/v1/conflicts/resolve", { space_id: space.id, path: copy.file_path, keep });
        toast(t("conflicts.settled", { name: shown((current ?? copy).file_name) }));
      } catch (error) {
        toastError(error);
      }
      await load();
    }
    return element;
  }

  life.add(shell.onChange(coalesced(load, 300)));
  load();
  return { element: page(t("nav.conflicts"), [], h("p", { class: "soft intro" }, t("conflicts.intro")), content) };
}
