// @ts-check
/** As much of a browser as the outbox and the question page need: storage, a document without a layout, answers by hand. */

/** What IndexedDB holds, by client and number. @type {Map<string, any>} */
export const kept = new Map();
/** Requests in order. @type {{method: string, path: string, body: any}[]} */
export const sent = [];
/** Decides what the server answers: a status, and JSON or text. @type {(request: {method: string, path: string, body: any}) => any} */
let answer = () => [404, {}];
/** How many intervals run. @type {Set<number>} */
export const intervals = new Set();
/** @type {Record<string, ((event: any) => void)[]>} */
const listeners = {};

/** @param {typeof answer} given */
export function answerWith(given) {
  answer = given;
  sent.length = 0;
}

/** Close the page: nothing of it hears of keys any more. */
export function closePage() {
  for (const name of Object.keys(listeners)) delete listeners[name];
}

/** @param {number} milliseconds */
export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** @param {string} key @param {boolean} [ctrlKey] */
export function press(key, ctrlKey = false) {
  const event = { key, code: key, ctrlKey, target: document.body, repeat: false, preventDefault() {} };
  for (const listener of listeners.keydown ?? []) listener(event);
}

/** @param {any} asked */
function later(asked) {
  queueMicrotask(() => asked.onsuccess?.());
  return asked;
}

/** Keep a record as a page that was closed. @param {string} client @param {number} client_no @param {string} [path] */
export function leave(client, client_no, path = "/api/events") {
  kept.set(client + client_no, { client, client_no, path, field: "events", record: { client_no } });
}

const store = {
  getAll: () => later({ result: [...kept.values()] }),
  /** @param {any} one */
  put(one) {
    kept.set(one.client + one.client_no, structuredClone(one));
    return later({ result: null });
  },
  /** @param {[string, number]} key */
  delete([client, number]) {
    kept.delete(client + number);
    return later({ result: null });
  },
};

class Node {
  constructor() {
    this.dataset = {};
    this.style = { setProperty() {} };
    this.classList = { toggle() {}, add() {}, remove() {} };
    /** @type {any[]} */
    this.children = [];
    this.textContent = "";
    this.clientWidth = 1000;
  }

  setAttribute() {}
  addEventListener() {}
  prepend() {}
  remove() {}
  scrollIntoView() {}
  getContext() {
    return null;
  }

  /** @param {...any} children */
  append(...children) {
    this.children.push(...children);
  }

  /** @param {...any} children */
  replaceChildren(...children) {
    this.children = children;
  }

  matches() {
    return false;
  }

  /** All text below. @returns {string} */
  get text() {
    return [this.textContent, ...this.children.map((one) => one?.text ?? "")].join(" ");
  }
}

export const main = new Node();
/** Where messages go. */
export const toasts = new Node();

let count = 0;
Object.assign(globalThis, {
  Element: Node,
  indexedDB: { open: () => later({ result: { transaction: () => ({ objectStore: () => store }) } }) },
  sessionStorage: { getItem: () => null, setItem() {}, removeItem() {} },
  createImageBitmap: async () => ({ width: 1 }),
  document: {
    body: new Node(),
    hidden: false,
    createElement: () => new Node(),
    querySelector: () => main,
    getElementById: (/** @type {string} */ id) => (id === "toasts" ? toasts : new Node()),
    addEventListener() {},
    removeEventListener() {},
  },
  window: {
    location: { pathname: "/questions", search: "" },
    innerWidth: 1200,
    top: 0,
    self: 0,
    addEventListener(/** @type {string} */ name, /** @type {(event: any) => void} */ listener) {
      (listeners[name] ??= []).push(listener);
    },
    removeEventListener() {},
    clearTimeout,
    setTimeout(/** @type {() => void} */ run, /** @type {number} */ wait) {
      const timer = setTimeout(run, wait);
      // A test ends although a page would do something later.
      if (wait > 1000) timer.unref();
      return timer;
    },
    setInterval() {
      count += 1;
      intervals.add(count);
      return count;
    },
    clearInterval: (/** @type {number} */ number) => intervals.delete(number),
  },
  async fetch(/** @type {string} */ path, /** @type {any} */ { method, body, signal }) {
    const request = { method, path, body: typeof body === "string" ? JSON.parse(body) : null };
    sent.push(request);
    const [status, value] = await answer({ ...request, ...{ signal } });
    return new Response(typeof value === "string" ? value : JSON.stringify(value), { status });
  },
});
