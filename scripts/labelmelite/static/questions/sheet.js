// @ts-check
/** The state of a task while somebody answers it: replies, reasons, what was seen, and the time each took. No DOM. */

/** @typedef {"yes" | "no" | "other"} Reply */
/** @typedef {"wrong_class" | "bad_boundary" | "two_objects" | "partial" | "not_part_of_cluster"} Reason */

/**
 * @typedef {object} Given
 * @property {Reply} reply
 * @property {Reason | null} reason
 * @property {boolean} default_used
 */

/**
 * @typedef {object} Item
 * @property {string} id
 * @property {string} alt
 * @property {number} width
 * @property {number} height
 * @property {[number, number, number, number]} box
 * @property {{size: [number, number], counts: string}} mask
 * @property {{x: number, y: number, side: number, zoom: number}} crop
 * @property {string} crop_url
 * @property {string} image_url
 * @property {Given | null} answer
 */

/**
 * @typedef {object} Task
 * @property {string} id
 * @property {"questions" | "edits" | "redraws"} kind
 * @property {"filmstrip" | "grid"} layout
 * @property {"none" | "no"} default
 * @property {boolean} third  Whether "not part of this cluster" is an answer here.
 * @property {boolean} advance
 * @property {string} expires
 * @property {{id: number, name: string, definition: string | null}} category
 * @property {string} text
 * @property {string} rule
 * @property {{yes: Item[], no: Item[]}} examples
 * @property {Item[]} items
 */

/** Answers to the items of a task. */
export class Sheet {
  /**
   * @param {Task} task
   * @param {() => number=} clock  Milliseconds.
   */
  constructor(task, clock = () => performance.now()) {
    this.task = task;
    this.clock = clock;
    this.now = 0;
    /** @type {(Given | null)[]} */
    this.given = task.items.map((item) => item.answer ?? null);
    this.seen = task.items.map((item) => item.answer !== null && item.answer !== undefined);
    /** Seconds spent on each item. */
    this.seconds = task.items.map(() => 0);
    this.since = clock();
    this.running = true;
    if (task.items.length) this.go(Math.max(0, this.given.findIndex((one) => one === null)));
  }

  get length() {
    return this.task.items.length;
  }

  /** How many items still need an answer, or a look where a default stands for one. */
  get left() {
    return this.given.filter((one, place) => one === null || !this.seen[place]).length;
  }

  get complete() {
    return this.left === 0;
  }

  /**
   * Stop or go on counting time, as when the tab is hidden.
   * @param {boolean} running
   */
  count(running) {
    this.charge();
    this.running = running;
  }

  /** Charge the time since the last look at the clock to the present item. */
  charge() {
    const now = this.clock();
    if (this.running && this.length) this.seconds[this.now] += (now - this.since) / 1000;
    this.since = now;
  }

  /**
   * Look at an item; a default becomes its answer at the first look.
   * @param {number} place
   * @returns {boolean}  Whether that gave it an answer.
   */
  go(place) {
    this.charge();
    this.now = Math.min(Math.max(0, place), this.length - 1);
    return this.look(this.now);
  }

  /**
   * @param {number} place
   * @returns {boolean}
   */
  look(place) {
    this.seen[place] = true;
    if (this.given[place] !== null || this.task.default === "none") return false;
    this.given[place] = { reply: this.task.default, reason: null, default_used: true };
    return true;
  }

  /**
   * Answer an item.
   * @param {number} place
   * @param {Reply} reply
   * @param {Reason | null=} reason
   * @returns {boolean}  Whether that is another answer than before.
   */
  answer(place, reply, reason = null) {
    if (reply === "other" && !this.task.third) return false;
    this.charge();
    this.now = place;
    this.seen[place] = true;
    const before = this.given[place];
    if (before && before.reply === reply && before.reason === reason && !before.default_used) return false;
    this.given[place] = { reply, reason: reply === "other" ? "not_part_of_cluster" : reason, default_used: false };
    return true;
  }

  /**
   * Turn yes into no and everything else into yes.
   * @param {number} place
   */
  toggle(place) {
    return this.answer(place, this.given[place]?.reply === "yes" ? "no" : "yes");
  }

  /**
   * Return the first item from a place on, round the end, that still needs an answer; -1 if none does.
   * @param {number} from
   */
  nextOpen(from) {
    for (let step = 0; step < this.length; step += 1) {
      const place = (from + step) % this.length;
      if (this.given[place] === null || !this.seen[place]) return place;
    }
    return -1;
  }

  /**
   * Return what the server is told about an item; the time is all that was spent on it so far.
   * @param {number} place
   * @param {"filmstrip" | "grid"} layout
   */
  record(place, layout) {
    this.charge();
    const given = this.given[place];
    if (!given) throw new Error(`item ${place} has no answer`);
    return { item: this.task.items[place].id, ...given, layout, seconds: Math.round(this.seconds[place] * 100) / 100 };
  }
}
