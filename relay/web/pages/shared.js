// What others share with this person: invitations that wait, folders, single files.

import { del, downloadUrl, get, post } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { moment, size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { kindOf, shown } from "../lib/names.js";
import { href } from "../lib/router.js";
import { busy, button, emptyState, failure, page } from "../ui/controls.js";
import { confirm, dialog } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";
import { fill } from "../files/preview.js";
import { personName } from "../share/people.js";

export function create(shell, life) {
  shell.title(t("nav.shared"));
  const content = h("div", { class: "cards" });

  async function load() {
    try {
      const { shares } = await get("/api/v1/shares?with=me");
      const waiting = shares.filter((share) => share.state === "pending" && share.kind === "folder");
      const folders = shares.filter((share) => share.state === "accepted" && share.kind === "folder");
      const files = shares.filter((share) => share.kind === "file" && share.file);
      shell.invitations.set(waiting.length);
      replace(content,
        section("shared.waiting", waiting, waitingRow), section("shared.folders", folders, folderRow), section("shared.files", files, fileRow),
        shares.length ? null : emptyState("shared", t("shared.none"), t("shared.noneText")));
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  const section = (key, list, row) => list.length > 0 && h("section", { class: "card" }, h("h2", null, t(key)), h("ul", { class: "rows" }, list.map(row)));

  const facts = (share, name, ...more) => h("div", { class: "rows-main" }, h("strong", null, name),
    h("span", { class: "soft" }, [t("shared.by", { name: personName(share.shared_by) }), t(`share.role.${share.role}`), ...more].join(" · ")));

  const waitingRow = (share) => h("li", null, icon("directory"), facts(share, shown(share.name)),
    h("div", { class: "rows-actions" },
      button(t("shared.accept"), (event) => answer(event.currentTarget, share, "accept"), { kind: "primary", "aria-label": t("shared.acceptWhat", { name: shown(share.name) }) }),
      button(t("shared.decline"), (event) => answer(event.currentTarget, share, "decline"), { "aria-label": t("shared.declineWhat", { name: shown(share.name) }) })));

  const folderRow = (share) => h("li", null, icon("directory"),
    facts(share, h("a", { href: href("files", share.space_id) }, shown(share.name))),
    h("div", { class: "rows-actions" },
      button(t("shared.leave"), () => leave(share), { kind: "quiet danger-text", "aria-label": t("shared.leaveWhat", { name: shown(share.name) }) })));

  const fileRow = (share) => {
    const { file } = share;
    const name = shown(file.file_name);
    return h("li", null, icon(kindOf(file)), facts(share, name, size(file.file_size), moment(file.modified_at ?? file.updated_at)),
      h("div", { class: "rows-actions" },
        button(t("action.preview"), () => look(file), { kind: "quiet", "aria-label": t("shared.previewWhat", { name }) }),
        h("a", { class: "button quiet", href: downloadUrl(file), download: file.file_name, "aria-label": t("shared.downloadWhat", { name }) }, t("action.download")),
        share.permission === "write" && button(t("shared.newVersion"), () => replaceFile(share), { kind: "quiet", "aria-label": t("shared.newVersionWhat", { name }) }),
        button(t("action.revoke"), (event) => drop(event.currentTarget, share), { kind: "quiet danger-text", "aria-label": t("shared.dropWhat", { name }) })));
  };

  const look = (file) => dialog(shown(file.file_name), (_, element) => {
    const stage = h("div", { class: "stage" });
    element.addEventListener("close", fill(stage, file));
    return stage;
  }, { wide: true, className: "preview" });

  const answer = (element, share, word) => busy(element, async () => {
    await post(`/api/v1/shares/${share.share_id}/${word}`);
    toast(t(word === "accept" ? "shared.accepted" : "shared.declined", { name: shown(share.name) }));
    await shell.reloadSpaces();
    await load();
  }, toastError);

  async function leave(share) {
    if (!(await confirm(t("shared.leaveWhat", { name: shown(share.name) }), t("shared.leaveText"), t("shared.leave")))) return;
    try {
      await del(`/api/v1/shares/${share.share_id}`);
      toast(t("shared.left", { name: shown(share.name) }));
    } catch (error) {
      toastError(error);
    }
    await shell.reloadSpaces().catch(toastError);
    await load();
  }

  const drop = (element, share) => busy(element, async () => {
    await del(`/api/v1/shares/${share.share_id}`);
    await load();
  }, toastError);

  // Its name and place are its owner's; only what is in it changes.
  function replaceFile(share) {
    const input = h("input", { type: "file", hidden: true });
    input.addEventListener("change", () => input.files[0] && shell.uploads.addVersion(input.files[0], share));
    input.click();
  }

  const refresh = coalesced(load, 300);
  life.add(shell.onChange(refresh));
  life.add(shell.uploads.onDone(refresh));
  load();
  return { element: page(t("nav.shared"), [], h("p", { class: "soft intro" }, t("shared.intro")), content) };
}
