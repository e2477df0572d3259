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
/** Records of one request, and their bytes: proxies take 1 MiB where nobody told them otherwise. */
const AT_ONCE = 50;
const BYTES_AT_ONCE = 900_000;
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
   * @param {(count: number, message: string) => void=} onRefused  Told what the server refuses of what earlier pages left;
   *   of what this page does, those who wait for the acknowledgement are told.
   */
  constructor(annotator, onState = () => {}, onRefused = () => {}) {
    this.client = uuid();
    this.count = 0;
    this.onState = onState;
    this.onRefused = onRefused;
    /** Records in order: those that earlier pages left, then those of this page. @type {Kept[]} */
    this.waiting = [];
    /** Records of the next request at most; fewer after one was too large. */
    this.most = AT_ONCE;
    /** Told what became of a record. @type {Map<number, (ack: Ack) => void>} */
    this.watchers = new Map();
    this.database = open(annotator);
    this.wait = FIRST_WAIT;
    /** @type {Promise<void> | null} */
    this.sending = null;
    /** @type {number | undefined} */
    this.timer = undefined;
    window.addEventListener("online", () => this.flush());
    this.loaded = this.loadLeftBehind();
    /** Resolved once what earlier pages left was sent, or could not be at the first try. @type {Promise<void>} */
    this.leftBehind = this.loaded.then(() => this.flush());
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
    await this.loaded;
    while (this.waiting.length) {
      const part = this.nextPart();
      try {
        const acks = await send(part);
        this.tell(part[0].client, acks);
        await this.drop(part);
        this.wait = FIRST_WAIT;
        this.most = Math.min(2 * this.most, AT_ONCE);
        this.onState(this.waiting.length, null);
      } catch (error) {
        const refused = error instanceof ApiError ? error : new ApiError(0, "offline", String(error));
        if (refused.status === 413 && part.length > 1) {
          this.most = part.length >> 1;
          continue;
        }
        if (!refused.transient) {
          // The whole request was refused: none of its records will ever go through.
          const { code, message } = refused;
          this.tell(part[0].client, part.map(({ client_no }) => ({ client_no, error: { code, message } })));
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

  /** The first records of one client for one address that fit a request. */
  nextPart() {
    const { client, path, field } = this.waiting[0];
    /** @type {Kept[]} */
    const part = [];
    let bytes = 0;
    for (const one of this.waiting.slice(0, this.most)) {
      if (one.client !== client || one.path !== path || one.field !== field) break;
      bytes += JSON.stringify(one.record).length;
      if (part.length && bytes > BYTES_AT_ONCE) break;
      part.push(one);
    }
    return part;
  }

  /**
   * Say what became of records.
   * @param {string} client
   * @param {Ack[]} acks
   */
  tell(client, acks) {
    if (client === this.client) {
      for (const ack of acks) {
        this.watchers.get(ack.client_no)?.(ack);
        this.watchers.delete(ack.client_no);
      }
      return;
    }
    const refused = acks.flatMap(({ error }) => (error ? [error.message] : []));
    if (refused.length) this.onRefused(refused.length, [...new Set(refused)].join(" "));
  }

  /** Wait until everything is acknowledged, at most so many milliseconds; return whether it is. @param {number} limit */
  async settled(limit) {
    let late = false;
    let timer = 0;
    /** @type {Promise<void>} */
    const end = new Promise((resolve) => {
      timer = window.setTimeout(() => {
        late = true;
        resolve();
      }, limit);
    });
    this.wait = FIRST_WAIT;
    while (this.waiting.length && !late) {
      // A request that hangs is not waited for.
      await Promise.race([this.flush(), end]);
      if (this.waiting.length && !late) await new Promise((resolve) => window.setTimeout(resolve, 50));
    }
    window.clearTimeout(timer);
    return this.waiting.length === 0;
  }

  /** Put what pages before this one left before everything else. */
  async loadLeftBehind() {
    const database = await this.database;
    if (!database) return;
    try {
      const kept = /** @type {Kept[]} */ (await result(database.transaction(STORE).objectStore(STORE).getAll()));
      this.waiting = [...kept.filter((one) => one.client !== this.client), ...this.waiting];
    } catch (error) {
      // What this page does is sent all the same; what lies there is for the next page.
      console.error(error);
    }
    if (this.waiting.length) this.onState(this.waiting.length, null);
  }

  /** @param {Kept} one */
  async keep(one) {
    const database = await this.database;
    if (database) await result(database.transaction(STORE, "readwrite").objectStore(STORE).put(one));
  }

  /** Forget records that were acknowledged or refused. @param {Kept[]} part */
  async drop(part) {
    const gone = new Set(part);
    this.waiting = this.waiting.filter((one) => !gone.has(one));
    const database = await this.database;
    if (!database) return;
    const store = database.transaction(STORE, "readwrite").objectStore(STORE);
    await Promise.all(part.map((one) => result(store.delete([one.client, one.client_no]))));
  }
}

/**
 * @param {Kept[]} part  Records of one client for one address.
 * @returns {Promise<Ack[]>}
 */
async function send(part) {
  const { client, path, field } = part[0];
  const given = await request("POST", path, { client, [field]: part.map((one) => one.record) });
  return given.acks;
}
