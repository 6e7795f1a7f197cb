// The API, as the session's cookie opens it. Errors come in the contract's one shape.

import { learnTime } from "./format.js";

/** Who is logged in, asked once: `{name, scope, project_id, session, csrf_token}`. */
let asked = null;

export function me() {
  asked ??= get("/api/me").then(({ me: answer }) => answer);
  asked.catch(() => (asked = null));
  return asked;
}

const RANKS = ["viewer", "worker", "operator", "admin"];

/** Whether who is logged in may do what needs `scope`. */
export async function may(scope) {
  return RANKS.indexOf((await me()).scope) >= RANKS.indexOf(scope);
}

/**
 * An answer that is an error: `message` is a sentence for people, `code` for programs, `issues` what is wrong where.
 * `status` is 0 where nobody answered.
 */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error ?? "The server gave an answer that the board doesn't understand.");
    this.status = status;
    this.code = body.code ?? "UNKNOWN";
    this.issues = body.issues ?? [];
    this.retryAfter = body.retryAfter ?? null;
    this.body = body;
  }
}

/** The page to log in at, which leads back here. */
export function loginUrl() {
  return `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
}

let leaving = false;

/** Go and log in, and come back to the same place. Forms keep what was typed (`form.js`). */
export function logIn() {
  if (leaving) return;
  leaving = true;
  location.assign(loginUrl());
}

/** A request; its answer's body. Raises ApiError, or AbortError when `signal` says so. A 401 leads to the login. */
export async function call(method, path, { body, signal, query, again = false } = {}) {
  const headers = { accept: "application/json" };
  // What another site's page can't send: by it the server knows that a change comes from here.
  if (method !== "GET") headers["x-csrf-token"] = (await me()).csrf_token;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(withQuery(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { error: "The server can't be reached. The board tries again by itself.", code: "UNREACHABLE" });
  }
  learnTime(response.headers.get("date"));
  const answer = await bodyOf(response);
  if (response.ok) return answer;
  // The link with GitHub is another thing than the session: a login here wouldn't mend it.
  if (response.status === 401 && answer?.code !== "GITHUB_LINK_BROKEN") logIn();
  // Another tab may have logged in anew meanwhile: then the old proof is no good, and the new one is.
  if (response.status === 403 && method !== "GET" && !again) {
    const before = headers["x-csrf-token"];
    asked = null;
    if ((await me()).csrf_token !== before) return call(method, path, { body, signal, query, again: true });
  }
  throw new ApiError(response.status, answer ?? {});
}

async function bodyOf(response) {
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    return null;
  }
}

/** A path with its query; lists repeat their name, null and "" are left out. */
export function withQuery(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) if (each !== null && each !== undefined && each !== "") search.append(name, each);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body) => call("POST", path, { body });
export const put = (path, body) => call("PUT", path, { body });
export const patch = (path, body) => call("PATCH", path, { body });
export const remove = (path) => call("DELETE", path);

/**
 * Every page of a list, one after the other. `each(items)` is given each page as it comes; returning false ends it.
 * At most `pages` pages are read.
 */
export async function readPages(path, name, query, each, { signal, pages = 100 } = {}) {
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const answer = await get(path, { limit: 200, ...query, cursor }, signal);
    if (each(answer[name]) === false) return false;
    cursor = answer.next_cursor;
    if (cursor === null) return true;
  }
  return false;
}
