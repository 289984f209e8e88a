// All uploads of this page: some at once, the rest in turn; paused, resumed and given up by the person.

import { allPages, get, post, query } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { joinPath } from "../lib/names.js";
import { toastError } from "../ui/toast.js";

/** As many as a browser has connections: a small file mostly waits for answers. */
const FILES_AT_ONCE = 6;
/** A file of more than one chunk has several on their way by itself. */
const LARGE_AT_ONCE = 3;
const LARGE_FROM_BYTES = 4 * 1024 * 1024;

const isLarge = (job) => job.size > LARGE_FROM_BYTES;

/** Modules that the first view does without, as far as they have come. */
const loaded = new Map();
let again = 0;

/**
 * One of them. A browser may remember of an address that nothing came: it is asked for again at another one. What it needs itself is in the first view,
 * and must be, since it has one address only.
 */
async function late(name) {
  const module = loaded.get(name) ?? (await import(`./${name}.js`).catch(() => import(`./${name}.js?again=${(again += 1)}`)));
  loaded.set(name, module);
  return module;
}

export class UploadQueue {
  jobs = [];
  #listeners = new Set();
  #done = new Set();
  #drawing = 0;

  constructor() {
    // What sends is not part of the first view, but there before it is wanted: the network may be gone then.
    (globalThis.requestIdleCallback ?? setTimeout)(() => late("job").catch(() => {}));
    addEventListener("beforeunload", (event) => {
      if (this.jobs.some((job) => job.isActive || job.state === "waiting")) event.preventDefault();
    });
  }

  /** Calls back at each change, at most once a frame. */
  watch(listener) {
    this.#listeners.add(listener);
    listener(this.jobs);
  }

  /** Calls back when a file is on the relay. */
  onDone(listener) {
    this.#done.add(listener);
    return () => this.#done.delete(listener);
  }

  #changed() {
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      for (const listener of this.#listeners) listener(this.jobs);
    });
  }

  /** Sends files to a directory of a space, after asking about names that are taken. `existing` is what is there, if the caller knows all of it. */
  async add(files, { space, path, existing }) {
    if (!files.length) return;
    try {
      const entries = existing ?? (await allPages((cursor) => get(`/metadata/files${query({ space_id: space.id, path, limit: 1000, cursor })}`)));
      const [{ settleNames }, { Job }] = await Promise.all([late("clash"), late("job")]);
      const chosen = await settleNames(files, new Map(entries.map((entry) => [entry.file_name, entry.kind])));
      if (!chosen) return;
      await makeDirectories(chosen.filter((one) => one.isDirectory), space, path);
      for (const one of chosen) {
        const missing = missingText(one);
        if (missing) this.#take(Job.missed(one.name, one.directory.reduce(joinPath, path), space, missing));
        else if (!one.isDirectory) this.#take(new Job(one.file, one.name, one.directory.reduce(joinPath, path), space));
      }
      this.#pump();
    } catch (error) {
      toastError(error);
    }
  }

  /** Sends a file as the new version of one that is shared with this person. */
  async addVersion(file, share) {
    try {
      const { Job } = await late("job");
      this.#take(new Job(file, share.file.file_name, "/", { id: share.space_id }, share.file_id));
      this.#pump();
    } catch (error) {
      toastError(error);
    }
  }

  #take(job) {
    job.onChange = () => {
      this.#changed();
      if (job.isOver) {
        if (job.state === "done" || job.state === "same") for (const listener of this.#done) listener(job);
      }
    };
    this.jobs.push(job);
    this.#changed();
  }

  #pump() {
    const running = this.jobs.filter((job) => job.running);
    let large = running.filter(isLarge).length;
    let free = FILES_AT_ONCE - running.length;
    for (const job of this.jobs) {
      if (free <= 0) break;
      if (job.state !== "waiting" || job.running || (isLarge(job) && large >= LARGE_AT_ONCE)) continue;
      free -= 1;
      if (isLarge(job)) large += 1;
      job.running = true;
      job.run().catch((error) => {
        job.state = "failed";
        job.error = error;
      }).finally(() => {
        job.running = false;
        this.#changed();
        this.#pump();
      });
    }
  }

  pause(jobs = this.jobs) {
    for (const job of jobs) job.pause();
    this.#pump();
  }

  resume(jobs = this.jobs) {
    for (const job of jobs) job.resume();
    this.#pump();
  }

  cancel(job) {
    return job.cancel();
  }

  /** Takes what is over off the list. */
  clear() {
    this.jobs = this.jobs.filter((job) => !job.isOver);
    this.#changed();
  }
}

/** Why something of what was dropped is not sent, or not all of it; nothing if it is. */
function missingText(one) {
  if (one.unreadable) return t("upload.unreadable");
  if (one.incomplete) return t("upload.incomplete");
  return one.beyond ? t("upload.beyond", { count: one.beyond }) : null;
}

/** Directories that hold nothing; those that hold files are made with these. */
async function makeDirectories(directories, space, path) {
  for (const one of directories) {
    const names = [...one.directory, one.name];
    const actions = names.map((name, i) => ({ action: "mkdir", path: names.slice(0, i).reduce(joinPath, path), file_name: name }));
    // Those that are there already are refused, which is well.
    await post("/api/v1/files/batch", { space_id: space.id, actions });
  }
}
