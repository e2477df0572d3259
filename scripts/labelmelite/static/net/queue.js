// @ts-check
/**
 * What a person did and the server has not acknowledged yet. It lies in IndexedDB, so that it outlives the tab, a lost
 * connection and a restart of the server, and is sent again until it is acknowledged or refused.
 *
 * Each page load is a client of its own and counts its records. A later page sends what an earlier one left, under the
 * earlier one's name; the server knows repeats by (client, client_no).
 */

import { ApiError, request, uuid } from "./api.js";

/**
 * @typedef {object} Kept
 * @property {string} client
 * @property {number} client_no
 * @property {string} path   Where it goes, such as "/api/events".
 * @property {string} field  The name of the list in the request: "events" or "answers".
 * @property {Record<string, any>} record
 */

/**
 * @typedef {object} Ack
 * @property {number} client_no
 * @property {number=} seq
 * @property {{code: string, message: string}=} error
 * @property {any=} present
 */

const DATABASE = "labelmelite";
const STORE = "outbox";
const AT_ONCE = 50;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;

/**
 * @template T
 * @param {IDBRequest<T>} asked
 * @returns {Promise<T>}
 */
function result(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

/**
 * Open what is kept for a person: others who use the same browser have their own.
 * @param {string} annotator
 * @returns {Promise<IDBDatabase | null>} null where the browser keeps nothing (a private window, say)
 */
async function open(annotator) {
  try {
    const asked = indexedDB.open(`${DATABASE}.${annotator}`, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: ["client", "client_no"] });
    return await result(asked);
  } catch {
    return null;
  }
}

/** Records on their way to the server; one for a page. */
export class Outbox {
  /**
   * @param {string} annotator  Who does it: what one person left unsent never goes out under another's session.
   * @param {(waiting: number, error: ApiError | null) => void=} onState  Told how many records wait, and why.
   */
  constructor(annotator, onState = () => {}) {
    this.client = uuid();
    this.count = 0;
    this.onState = onState;
    /** Records of this page, in order. @type {Kept[]} */
    this.waiting = [];
    /** Told what became of a record. @type {Map<number, (ack: Ack) => void>} */
    this.watchers = new Map();
    this.database = open(annotator);
    this.wait = FIRST_WAIT;
    /** @type {Promise<void> | null} */
    this.sending = null;
    /** @type {number | undefined} */
    this.timer = undefined;
    window.addEventListener("online", () => this.flush());
    /** Resolved once what earlier pages left was sent, or could not be. */
    this.leftBehind = this.sendLeftBehind();
  }

  /**
   * Keep a record and send it. It is safe against a closed tab once `kept` has resolved.
   * @param {string} path
   * @param {string} field
   * @param {Record<string, any>} record  Gets its `client_no` here.
   * @returns {{client_no: number, kept: Promise<void>, acknowledged: Promise<Ack>}}
   */
  push(path, field, record) {
    this.count += 1;
    const client_no = this.count;
    /** @type {Kept} */
    const one = { client: this.client, client_no, path, field, record: { ...record, client_no } };
    this.waiting.push(one);
    /** @type {Promise<Ack>} */
    const acknowledged = new Promise((resolve) => this.watchers.set(client_no, resolve));
    const kept = this.keep(one);
    this.onState(this.waiting.length, null);
    this.flush();
    return { client_no, kept, acknowledged };
  }

  /** Send what waits; calls while it sends are one. */
  flush() {
    window.clearTimeout(this.timer);
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async sendAll() {
    while (this.waiting.length) {
      const { path, field } = this.waiting[0];
      const end = this.waiting.findIndex((one) => one.path !== path || one.field !== field);
      const part = this.waiting.slice(0, Math.min(AT_ONCE, end === -1 ? this.waiting.length : end));
      try {
        const acks = await send(this.client, part);
        this.waiting.splice(0, part.length);
        for (const ack of acks) {
          this.watchers.get(ack.client_no)?.(ack);
          this.watchers.delete(ack.client_no);
        }
        await this.drop(part);
        this.wait = FIRST_WAIT;
        this.onState(this.waiting.length, null);
      } catch (error) {
        const refused = error instanceof ApiError ? error : new ApiError(0, "offline", String(error));
        if (!refused.transient && refused.code !== "sign_in") {
          // The whole request was refused: none of its records will ever go through.
          this.waiting.splice(0, part.length);
          for (const { client_no } of part) {
            this.watchers.get(client_no)?.({ client_no, error: { code: refused.code, message: refused.message } });
            this.watchers.delete(client_no);
          }
          await this.drop(part);
          this.onState(this.waiting.length, refused);
          continue;
        }
        this.onState(this.waiting.length, refused);
        this.timer = window.setTimeout(() => this.flush(), this.wait);
        this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
        return;
      }
    }
  }

  /** Wait until everything is acknowledged, at most so many milliseconds; return whether it is. @param {number} limit */
  async settled(limit) {
    const end = performance.now() + limit;
    this.wait = FIRST_WAIT;
    while (this.waiting.length && performance.now() < end) {
      await this.flush();
      if (this.waiting.length) await new Promise((resolve) => window.setTimeout(resolve, 50));
    }
    return this.waiting.length === 0;
  }

  /** Send what pages before this one left, each under its own name. */
  async sendLeftBehind() {
    const database = await this.database;
    if (!database) return;
    const kept = /** @type {Kept[]} */ (await result(database.transaction(STORE).objectStore(STORE).getAll()));
    const others = kept.filter((one) => one.client !== this.client);
    while (others.length) {
      const { client, path, field } = others[0];
      const end = others.findIndex((one) => one.client !== client || one.path !== path || one.field !== field);
      const part = others.splice(0, Math.min(AT_ONCE, end === -1 ? others.length : end));
      try {
        await send(client, part);
        await this.drop(part);
      } catch (error) {
        // What is refused for good need not be kept; what did not arrive is sent by the next page.
        if (error instanceof ApiError && !error.transient && error.code !== "sign_in") await this.drop(part);
      }
    }
  }

  /** @param {Kept} one */
  async keep(one) {
    const database = await this.database;
    if (database) await result(database.transaction(STORE, "readwrite").objectStore(STORE).put(one));
  }

  /** @param {Kept[]} part */
  async drop(part) {
    const database = await this.database;
    if (!database) return;
    const store = database.transaction(STORE, "readwrite").objectStore(STORE);
    await Promise.all(part.map((one) => result(store.delete([one.client, one.client_no]))));
  }
}

/**
 * @param {string} client
 * @param {Kept[]} part  Records of one client for one address.
 * @returns {Promise<Ack[]>}
 */
async function send(client, part) {
  const { path, field } = part[0];
  const given = await request("POST", path, { client, [field]: part.map((one) => one.record) });
  return given.acks;
}
