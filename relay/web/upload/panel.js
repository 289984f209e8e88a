// The list of uploads in the corner: each with its progress, and ways to pause, resume and give up.

import { h, replace } from "../lib/dom.js";
import { size, t } from "../lib/i18n.js";
import { shown } from "../lib/names.js";
import { iconButton } from "../ui/controls.js";
import { icon } from "../ui/icons.js";

/** Rows that are drawn; of more only the count is said. */
const SHOWN_MAX = 100;

export function uploadPanel(queue) {
  const rows = new Map();
  const list = h("ul", { class: "upload-list" });
  const title = h("h2", { id: "uploads-title" });
  const spoken = h("p", { class: "unseen", role: "status", "aria-live": "polite" });
  const all = h("span", { class: "upload-all" });
  const fold = iconButton("down", t("upload.fold"), () => {
    const folded = element.classList.toggle("folded");
    fold.setAttribute("aria-expanded", String(!folded));
  }, { "aria-expanded": "true" });
  const close = iconButton("close", t("action.close"), () => queue.clear());
  const element = h("section", { class: "uploads", "aria-labelledby": "uploads-title", hidden: true }, h("header", null, title, all, fold, close), list, spoken);
  let last = "";

  queue.watch((jobs) => {
    element.hidden = jobs.length === 0;
    const over = jobs.filter((job) => job.isOver);
    const failed = jobs.filter((job) => job.state === "failed");
    const active = jobs.length - over.length;
    const paused = jobs.some((job) => job.state === "paused");
    const running = jobs.some((job) => job.isActive || job.state === "waiting");
    const text = active ? t("upload.active", { done: over.length, count: jobs.length }) : failed.length ? t("upload.failed", { count: failed.length }) : t("upload.finished", { count: over.length });
    title.textContent = text;
    if (!active && last !== text) spoken.textContent = text;
    last = active ? "" : text;
    close.hidden = active > 0;
    if (all.dataset.shows !== `${running}${paused}`) {
      all.dataset.shows = `${running}${paused}`;
      replace(all, running && active > 1 && iconButton("pause", t("upload.pauseAll"), () => queue.pause()), !running && paused && iconButton("play", t("upload.resumeAll"), () => queue.resume()));
    }
    draw(jobs);
  });

  function draw(jobs) {
    const seen = [...jobs.filter((job) => !job.isOver), ...jobs.filter((job) => job.isOver).reverse()].slice(0, SHOWN_MAX);
    for (const [job, row] of rows) {
      if (!seen.includes(job)) {
        row.element.remove();
        rows.delete(job);
      }
    }
    for (const job of seen) {
      let row = rows.get(job);
      if (!row) rows.set(job, (row = makeRow(job)));
      if (!row.element.parentNode) list.append(row.element);
      row.draw();
    }
  }

  function makeRow(job) {
    const name = shown(job.name);
    const progress = h("progress", { max: 1, "aria-label": name });
    const note = h("span", { class: "upload-note" });
    const tools = h("span", { class: "upload-tools" });
    let drawn = "";
    const li = h("li", null, icon("file"), h("span", { class: "upload-name", title: name }, name), tools, progress, note);
    return {
      element: li,
      draw() {
        const { state } = job;
        const share = job.size ? (["hashing", "checking"].includes(state) ? job.hashed : job.sent) / job.size : 0;
        progress.value = state === "done" || state === "same" ? 1 : share;
        progress.hidden = job.isOver;
        note.textContent = noteOf(job);
        li.dataset.state = state;
        if (drawn === state) return;
        drawn = state;
        replace(tools,
          (job.isActive || state === "waiting") && iconButton("pause", t("upload.pause", { name }), () => queue.pause([job])),
          state === "paused" && iconButton("play", t("upload.resume", { name }), () => queue.resume([job])),
          state === "failed" && job.file && iconButton("retry", t("upload.retry", { name }), () => queue.resume([job])),
          !job.isOver && iconButton("close", t("upload.cancel", { name }), () => queue.cancel(job)));
      },
    };
  }

  return element;
}

function noteOf(job) {
  const { state, error } = job;
  if (state === "failed") return error?.isFile ? t("upload.changed") : (error?.text ?? t("error.unknown"));
  if (state === "sending") return t("upload.sending", { sent: size(job.sent), size: size(job.size) });
  if (state === "offline") return t("upload.offline");
  return t(`upload.${state}`);
}
