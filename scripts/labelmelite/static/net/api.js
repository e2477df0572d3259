// @ts-check
/** What pages ask of the server; see docs/labelmelite-api.md. Pages never speak to another host. */

import { forget, recall, remember } from "./storage.js";

/**
 * @typedef {object} Session
 * @property {{id: string, name: string, role: "owner" | "annotator" | "reader"}} annotator
 * @property {string} csrf
 * @property {"lab" | "study" | "mturk" | "file"} adapter
 * @property {boolean} preview
 * @property {boolean} asks  Whether this server has questions.
 * @property {{run: string, iteration: number} | null} loop
 * @property {{text: string, rule: string, t_iou: number, text_version: string, default: "none" | "no", layout: "filmstrip" | "grid", advance: boolean}} question
 * @property {Record<string, string[]>} keys
 */

const HEADER_SESSION = "labelmelite.session";
/** Milliseconds after which a request counts as lost: a connection that hangs would hold everything behind it. */
const PATIENCE = { reading: 300_000, changing: 60_000 };

/** A request that was refused or did not arrive; `code` is the server's, or "offline". */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message  A sentence for the person.
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether the same request may go through later: with the server, with space, or when the person is signed in again. */
  get transient() {
    return this.code === "offline" || this.code === "stale" || this.code === "sign_in" || this.code === "storage" || this.code === "unavailable" || this.status >= 500;
  }
}

/** @type {Session | null} */
let session = null;

/**
 * Return who is signed in; asks the server once.
 * @returns {Promise<Session>}
 */
export async function getSession() {
  session ??= /** @type {Session} */ (await request("GET", "/api/session"));
  return session;
}

/**
 * Exchange a token for a session.
 * @param {Record<string, unknown>} token
 * @returns {Promise<Session>}
 */
export async function signIn(token) {
  const given = /** @type {Session & {session?: string}} */ (await request("POST", "/api/session", token));
  // Inside the frame of a crowd platform cookies may be blocked; there the header carries the session.
  if (given.session && window.top !== window.self) remember(HEADER_SESSION, given.session);
  session = given;
  return given;
}

/**
 * Read again who is signed in, after another tab has opened a link. Another person's session is not taken: what was done
 * here is not theirs.
 */
async function renewSession() {
  const found = /** @type {Session} */ (await request("GET", "/api/session"));
  if (session && found.annotator.id !== session.annotator.id) {
    throw new ApiError(409, "stale", "Somebody else has signed in in this browser. What you did here is kept, and is sent when you have signed in again.");
  }
  session = Object.assign(session ?? {}, found);
}

export async function signOut() {
  await request("DELETE", "/api/session");
  forget(HEADER_SESSION);
  session = null;
}

/**
 * Ask the server. A session that has begun anew meanwhile is taken over if it is the same person's.
 * @param {string} method
 * @param {string} path
 * @param {unknown=} body  Sent as JSON, or as it is if it is a form.
 * @param {{keepalive?: boolean, signal?: AbortSignal}=} options
 * @returns {Promise<any>}
 */
export async function request(method, path, body, options = {}) {
  try {
    return await ask(method, path, body, options);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "stale") throw error;
  }
  await renewSession();
  return ask(method, path, body, options);
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @param {{keepalive?: boolean, signal?: AbortSignal}} options
 * @returns {Promise<any>}
 */
async function ask(method, path, body, options) {
  const headers = new Headers({ Accept: "application/json" });
  const own = recall(HEADER_SESSION);
  if (own) headers.set("Authorization", `Bearer ${own}`);
  if (method !== "GET" && session) headers.set("X-Labelmelite", session.csrf);
  let content;
  /** @type {AbortSignal | undefined} */
  let signal = AbortSignal.timeout(method === "GET" ? PATIENCE.reading : PATIENCE.changing);
  if (body instanceof FormData) {
    content = body;
    // A file of gigabytes may take its time.
    signal = undefined;
  } else if (body !== undefined) {
    headers.set("Content-Type", "application/json");
    content = JSON.stringify(body);
  }
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, body: content, credentials: "same-origin", signal, ...options });
    text = response.status === 204 ? "" : await response.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "offline", "The server cannot be reached. What you did is kept here and sent again.");
  }
  let given = null;
  try {
    given = text ? JSON.parse(text) : null;
  } catch {
    // Not the server's words, but those of a proxy before it.
    if (response.status === 413) throw new ApiError(413, "too_large", "This is larger than the proxy before the server lets through. Whoever runs it must raise its limit (nginx: client_max_body_size).");
    throw new ApiError(response.status || 500, "unavailable", "The server's answer cannot be read.");
  }
  if (!response.ok) {
    const error = given?.error ?? {};
    throw new ApiError(response.status, error.code ?? "unavailable", error.message ?? `The server answered ${response.status}.`);
  }
  return given;
}

/**
 * Return an address of the server with a query, leaving out what is empty.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} query
 */
export function withQuery(path, query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/** Return a random name that nobody else has; works without a secure context too. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
