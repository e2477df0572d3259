// @ts-check
/** The objects of one image: their bitmaps, contours and names, and which of them is meant. No drawing. */

import { nearest, retrace, trace } from "../geometry/contour.js";
import { area, changedBox, fromRle, has, toRle } from "../geometry/mask.js";

/** @typedef {import("../geometry/mask.js").Bitmap} Bitmap */
/** @typedef {import("../geometry/mask.js").Box} Box */
/** @typedef {import("../geometry/contour.js").Loop} Loop */
/** @typedef {import("../geometry/rle.js").Rle} Rle */

/**
 * @typedef {object} Item
 * @property {string} id
 * @property {string} category
 * @property {number | null} score
 * @property {Rle} mask
 * @property {Bitmap} bitmap
 * @property {Loop[]} loops
 * @property {number} area
 * @property {number} colour place in the list of colours
 */

/** @typedef {{id: string, category: string, mask: Rle, score?: number | null}} Given */

export class Scene {
  /** @param {number} width @param {number} height of the image */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    /** @type {Map<string, Item>} */
    this.items = new Map();
    /** @type {string | null} */
    this.selected = null;
    /** @type {string | null} */
    this.hovered = null;
    this.colours = 0;
    /** @type {Item[] | null} */
    this.sorted = null;
  }

  /** From the smallest to the largest: the order in which a click finds them. */
  get order() {
    this.sorted ??= [...this.items.values()].sort((a, b) => a.area - b.area || (a.id < b.id ? -1 : 1));
    return this.sorted;
  }

  /** @param {string | null} id */
  item(id) {
    return id === null ? undefined : this.items.get(id);
  }

  get current() {
    return this.item(this.selected);
  }

  /**
   * Add an object; bitmap and contours may come from the worker.
   * @param {Given} given
   * @param {{bitmap: Bitmap, loops: Loop[]}} [decoded]
   * @returns {Item}
   */
  add(given, decoded) {
    const bitmap = decoded?.bitmap ?? fromRle(given.mask);
    const item = {
      id: given.id,
      category: given.category,
      score: given.score ?? null,
      mask: given.mask,
      bitmap,
      loops: decoded?.loops ?? trace(bitmap),
      area: area(bitmap),
      colour: this.colours++,
    };
    this.items.set(item.id, item);
    this.sorted = null;
    return item;
  }

  /** @param {string} id */
  remove(id) {
    this.items.delete(id);
    if (this.selected === id) this.selected = null;
    if (this.hovered === id) this.hovered = null;
    this.sorted = null;
  }

  /**
   * Give an object another mask; returns the box of what changed, without width if nothing did.
   * @param {Item} item
   * @param {Bitmap} bitmap
   * @param {Rle} [mask] the same as run lengths, where they are known
   * @returns {Box}
   */
  setMask(item, bitmap, mask) {
    const changed = changedBox(item.bitmap, bitmap);
    if (!changed.width) return changed;
    item.loops = retrace(bitmap, item.loops, changed.y, changed.y + changed.height);
    item.bitmap = bitmap;
    item.mask = mask ?? this.encode(bitmap);
    item.area = area(bitmap);
    this.sorted = null;
    return changed;
  }

  /**
   * @param {Bitmap} bitmap
   * @returns {Rle}
   */
  encode(bitmap) {
    return toRle(bitmap, this.height, this.width);
  }

  /**
   * The smallest object at a place.
   * @param {number} x
   * @param {number} y
   * @returns {Item | undefined}
   */
  at(x, y) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return this.order.find((item) => has(item.bitmap, column, row));
  }

  /**
   * How far a place is from an object's contours.
   * @param {Item} item
   * @param {number} x
   * @param {number} y
   */
  distance(item, x, y) {
    let least = Infinity;
    for (const loop of item.loops) least = Math.min(least, nearest(loop.points, x, y).distance);
    return least;
  }

  /**
   * The object whose contour is nearest to a place.
   * @param {number} x
   * @param {number} y
   * @returns {Item | undefined}
   */
  nearest(x, y) {
    /** @type {Item | undefined} */
    let best;
    let least = Infinity;
    const boxed = this.order.map((item) => ({ item, least: boxDistance(item.bitmap, x, y) }));
    boxed.sort((a, b) => a.least - b.least);
    for (const one of boxed) {
      // No contour is nearer than its box.
      if (one.least >= least) break;
      const distance = this.distance(one.item, x, y);
      if (distance < least) {
        least = distance;
        best = one.item;
      }
    }
    return best;
  }

  /** The next object of the list, or the one before. @param {1 | -1} step */
  neighbour(step) {
    const ids = [...this.items.keys()];
    if (!ids.length) return null;
    const place = this.selected === null ? (step > 0 ? -1 : 0) : ids.indexOf(this.selected);
    return ids[(place + step + ids.length) % ids.length];
  }
}

/** @param {Box} box @param {number} x @param {number} y */
function boxDistance(box, x, y) {
  const dx = Math.max(box.x - x, 0, x - box.x - box.width);
  const dy = Math.max(box.y - y, 0, y - box.y - box.height);
  return Math.hypot(dx, dy);
}
