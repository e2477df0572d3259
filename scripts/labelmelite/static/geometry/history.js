/**
 * Undo and redo without a limit: what happened to the objects of an image, in order. No DOM, no network.
 *
 * A change holds what was before and after, so that taking it back is a change too. The list can be made again from the
 * server's events, and so survives a reload.
 */

/** @typedef {import("./rle.js").Rle} Rle */
/**
 * @typedef {object} Change
 * @property {string} object
 * @property {"create" | "edit" | "delete" | "restore" | "rename"} kind
 * @property {Rle | null} before
 * @property {Rle | null} after
 * @property {string} category name before
 * @property {string} categoryAfter name after; the same unless renamed
 * @property {number | null} seq the event's number, once the server gave it
 * @property {number | null} clientNo the event's number in this page
 */

/**
 * The change that takes another one back.
 * @param {Change} change
 * @returns {Change}
 */
export function inverse(change) {
  /** @type {Record<Change["kind"], Change["kind"]>} */
  const kinds = { create: "delete", restore: "delete", delete: "restore", edit: "edit", rename: "rename" };
  return {
    object: change.object,
    kind: kinds[change.kind],
    before: change.after,
    after: change.before,
    category: change.categoryAfter,
    categoryAfter: change.category,
    seq: null,
    clientNo: null,
  };
}

/**
 * The change that does it again; an object that was made once is restored, because its id is known.
 * @param {Change} change
 * @returns {Change}
 */
export function again(change) {
  return { ...change, kind: change.kind === "create" ? "restore" : change.kind, seq: null, clientNo: null };
}

export class History {
  constructor() {
    /** @type {Change[]} */
    this.done = [];
    /** @type {Change[]} */
    this.undone = [];
  }

  /** @param {Change} change */
  push(change) {
    this.done.push(change);
    this.undone = [];
  }

  /**
   * Take back the latest change; the caller applies what is returned.
   * @returns {{change: Change, undoes: Change} | null}
   */
  undo() {
    const undoes = this.done.pop();
    if (!undoes) return null;
    this.undone.push(undoes);
    return { change: inverse(undoes), undoes };
  }

  /** @returns {{change: Change, redoes: Change} | null} */
  redo() {
    const redoes = this.undone.pop();
    if (!redoes) return null;
    const change = again(redoes);
    this.done.push(change);
    return { change, redoes };
  }

  /**
   * Forget what happened to an object, because somebody else changed it.
   * @param {string} object
   */
  forget(object) {
    this.done = this.done.filter((change) => change.object !== object);
    this.undone = this.undone.filter((change) => change.object !== object);
  }
}

/**
 * @typedef {object} LoggedEvent
 * @property {number} seq
 * @property {string} object
 * @property {Change["kind"]} kind
 * @property {{before?: any, after?: any, category?: string}} payload
 * @property {number | null} [undoes]
 * @property {number | null} [redoes]
 * @property {string} [annotator]
 */

/**
 * Make the list again from the events of an image, oldest first. A change by somebody else ends what can be undone of its
 * object, because the state that an undo would start from is no longer there.
 * @param {LoggedEvent[]} events
 * @param {Map<string, string>} categories names of the objects as they are now
 * @param {(event: LoggedEvent) => boolean} own whether an event is this person's
 * @returns {History}
 */
export function replay(events, categories, own) {
  const history = new History();
  const names = namesBefore(events, categories);
  events.forEach((event, place) => {
    if (!own(event)) {
      history.forget(event.object);
      return;
    }
    const change = toChange(event, names[place]);
    const undone = event.undoes ? history.done.findLastIndex(({ seq }) => seq === event.undoes) : -1;
    const redone = event.redoes ? history.undone.findLastIndex(({ seq }) => seq === event.redoes) : -1;
    if (undone >= 0) history.undone.push(...history.done.splice(undone, 1));
    else if (redone >= 0) {
      history.undone.splice(redone, 1);
      history.done.push(change);
    } else history.push(change);
  });
  return history;
}

/**
 * The category of each event's object just before it.
 * @param {LoggedEvent[]} events
 * @param {Map<string, string>} categories
 * @returns {string[]}
 */
function namesBefore(events, categories) {
  const now = new Map(categories);
  /** @type {string[]} */
  const names = new Array(events.length).fill("");
  for (let place = events.length - 1; place >= 0; place--) {
    const event = events[place];
    if (event.kind === "rename") now.set(event.object, event.payload.before);
    if (event.kind === "create" && event.payload.category) now.set(event.object, event.payload.category);
    names[place] = now.get(event.object) ?? "";
  }
  // An object that is deleted now has no name to go back from; a rename before that tells it.
  const known = new Map();
  return names.map((name, place) => {
    const event = events[place];
    const own = name || known.get(event.object) || "";
    known.set(event.object, event.kind === "rename" ? event.payload.after : own);
    return own;
  });
}

/**
 * @param {LoggedEvent} event
 * @param {string} category
 * @returns {Change}
 */
function toChange({ seq, object, kind, payload }, category) {
  const renamed = kind === "rename";
  return {
    object,
    kind,
    before: renamed ? null : (payload.before ?? null),
    after: renamed ? null : (payload.after ?? null),
    category,
    categoryAfter: renamed ? payload.after : category,
    seq,
    clientNo: null,
  };
}
