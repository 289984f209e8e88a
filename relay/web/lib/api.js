// The one way to the relay. The session is a cookie that no script can read; what changes something carries the token of this page (R51).

import { t, has } from "./i18n.js";

/** What the relay refused, or that it did not answer. */
export class ApiError extends Error {
  constructor(status, problem, retryAfterS) {
    super(problem.detail ?? t("error.unknown"));
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.hint = problem.hint;
    this.requestId = problem.request_id;
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }

  /** What a person should read. */
  get text() {
    return refusal({ code: this.code, detail: this.message, hint: this.hint });
  }

  /** Whether trying again later may help. */
  get isTemporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500 && this.status !== 507;
  }
}

/** Why the relay refused something, for a person: our own words where we have them, else the relay's. */
export function refusal({ code, detail, hint }) {
  const own = `error.${code}`;
  if (has(own)) return t(own);
  return [detail ?? t("error.unknown"), hint].filter(Boolean).join(" ");
}

const session = { csrf: "", user: null };
let whenLoggedOut = () => {};

/** Who is logged in. */
export const user = () => session.user;

/** What a form of ours must carry. */
export const csrf = () => session.csrf;

/** Asks who is logged in; throws if nobody is. */
export async function openSession(loggedOut) {
  whenLoggedOut = loggedOut;
  const [{ csrf_token: token }, user] = await Promise.all([get("/api/v1/me/browser"), get("/auth/me")]);
  session.csrf = token;
  session.user = user;
  return user;
}

/** Sends a request; gives the response, or throws an [`ApiError`]. */
export async function send(method, path, { body, json, headers = {}, signal } = {}) {
  const all = { ...headers };
  if (json !== undefined) {
    all["content-type"] = "application/json";
    body = JSON.stringify(json);
  }
  if (method !== "GET" && method !== "HEAD") all["x-csrf-token"] = session.csrf;
  let response;
  try {
    response = await fetch(path, { method, body, headers: all, signal, credentials: "same-origin", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "unreachable", detail: t("error.unreachable") });
  }
  if (response.ok || response.status === 304) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) whenLoggedOut();
  throw new ApiError(response.status, problem, Number(response.headers.get("retry-after")) || null);
}

async function answer(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => answer("GET", path, options);
export const post = (path, json = {}, options = {}) => answer("POST", path, { json, ...options });
export const put = (path, json, options = {}) => answer("PUT", path, { json, ...options });
export const patch = (path, json, options = {}) => answer("PATCH", path, { json, ...options });
export const del = (path, json, options = {}) => answer("DELETE", path, { json, ...options });

/** A query string of what is given. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** Every page of a list: `ask(cursor)` gives one. `more(soFar)` is called after each. */
export async function allPages(ask, more = () => {}) {
  const files = [];
  let cursor;
  do {
    const page = await ask(cursor);
    files.push(...page.files);
    cursor = page.has_more ? page.cursor : undefined;
    more(files, cursor === undefined);
  } while (cursor !== undefined);
  return files;
}

/** Asks which folders there are, and by whom they are shared. */
export const askSpaces = () => Promise.all([get("/sync/v1/namespaces"), get("/api/v1/spaces").catch(() => ({ spaces: [] }))]);

/** The address of a file's bytes. */
export const downloadUrl = (entry, version = entry.version_id) =>
  `/download/${encodeURIComponent(entry.file_id)}${query({ space_id: entry.space_id, version: version ?? undefined })}`;
