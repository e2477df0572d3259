/**
 * Polygons to pixels: a pixel is set when its centre is inside, by the even-odd rule with half-open scanlines.
 *
 * Half-open: a centre on a left or top edge is inside, on a right or bottom edge outside, so that polygons which share
 * an edge share no pixel and leave none out. The crossing of an edge with a row does not depend on its direction.
 */

import { blank } from "./mask.js";

/** @typedef {import("./mask.js").Bitmap} Bitmap */
/** Corners x0, y0, x1, y1, ... of a closed polygon. @typedef {ArrayLike<number>} Polygon */

/**
 * Sorted crossings of the outlines with each row of pixel centres.
 * @param {Polygon[]} polygons
 * @returns {{top: number, starts: Uint32Array, crossings: Float64Array}} row top + i: starts[i] up to starts[i + 1]
 */
function scan(polygons) {
  let low = Infinity;
  let high = -Infinity;
  for (const polygon of polygons) {
    for (let place = 1; place < polygon.length; place += 2) {
      low = Math.min(low, polygon[place]);
      high = Math.max(high, polygon[place]);
    }
  }
  const top = Math.ceil(low - 0.5);
  const rows = Math.max(0, Math.ceil(high - 0.5) - top) || 0;
  const starts = new Uint32Array(rows + 1);
  /** @param {(row: number, x0: number, y0: number, x1: number, y1: number) => void} visit */
  const forEachCrossing = (visit) => {
    for (const polygon of polygons) {
      const count = polygon.length;
      for (let place = 0; place < count; place += 2) {
        const next = place + 2 < count ? place + 2 : 0;
        const down = polygon[place + 1] < polygon[next + 1];
        const [upper, lower] = down ? [place, next] : [next, place];
        const y0 = polygon[upper + 1];
        const y1 = polygon[lower + 1];
        const last = Math.ceil(y1 - 0.5) - top;
        for (let row = Math.ceil(y0 - 0.5) - top; row < last; row++) visit(row, polygon[upper], y0, polygon[lower], y1);
      }
    }
  };
  forEachCrossing((row) => starts[row + 1]++);
  for (let row = 0; row < rows; row++) starts[row + 1] += starts[row];
  const crossings = new Float64Array(starts[rows]);
  const next = starts.slice();
  forEachCrossing((row, x0, y0, x1, y1) => {
    crossings[next[row]++] = x0 + ((top + row + 0.5 - y0) / (y1 - y0)) * (x1 - x0);
  });
  for (let row = 0; row < rows; row++) sortPart(crossings, starts[row], starts[row + 1]);
  return { top, starts, crossings };
}

/**
 * Sort a part in place; most rows have two entries.
 * @param {Float64Array} values
 * @param {number} from
 * @param {number} to
 */
function sortPart(values, from, to) {
  if (to - from > 24) {
    values.subarray(from, to).sort();
    return;
  }
  for (let place = from + 1; place < to; place++) {
    const value = values[place];
    let hole = place;
    for (; hole > from && values[hole - 1] > value; hole--) values[hole] = values[hole - 1];
    values[hole] = value;
  }
}

/**
 * The pixels inside polygons, taken together by the even-odd rule: one polygon's F(P), or the XOR over several.
 * @param {...Polygon} polygons
 * @returns {Bitmap}
 */
export function fill(...polygons) {
  const scanned = scan(polygons);
  // Where outlines cancel nothing is set; the bitmap is made for what is.
  let [left, right, first, last] = [Infinity, -Infinity, Infinity, -1];
  forEachSpan(scanned, (row, from, to) => {
    if (from < left) left = from;
    if (to > right) right = to;
    if (row < first) first = row;
    last = row;
  });
  if (last < 0) return blank({ x: 0, y: 0, width: 0, height: 0 });
  return painted(scanned, { x: left, y: scanned.top + first, width: right - left, height: last - first + 1 });
}

/**
 * The part of F(P) in a box.
 * @param {Polygon} polygon
 * @param {import("./mask.js").Box} box
 * @returns {Bitmap}
 */
export function fillWithin(polygon, box) {
  return painted(scan([polygon]), box);
}

/**
 * @param {ReturnType<typeof scan>} scanned
 * @param {import("./mask.js").Box} box
 * @returns {Bitmap}
 */
function painted(scanned, box) {
  const bitmap = blank(box);
  const { x, y, width, height } = box;
  forEachSpan(scanned, (row, from, to) => {
    const own = scanned.top + row - y;
    if (own < 0 || own >= height) return;
    const start = own * width - x;
    bitmap.data.fill(1, start + Math.max(from, x), start + Math.max(Math.min(to, x + width), x));
  });
  return bitmap;
}

/**
 * @param {ReturnType<typeof scan>} scanned
 * @param {(row: number, from: number, to: number) => void} visit row counted from the top one, columns of pixels; never empty
 */
function forEachSpan({ starts, crossings }, visit) {
  for (let row = 0; row + 1 < starts.length; row++) {
    for (let place = starts[row]; place < starts[row + 1]; place += 2) {
      const from = Math.ceil(crossings[place] - 0.5);
      const to = Math.ceil(crossings[place + 1] - 0.5);
      if (to > from) visit(row, from, to);
    }
  }
}

/**
 * The number of pixels inside one polygon, without filling it.
 * @param {Polygon} polygon
 * @returns {number}
 */
export function count(polygon) {
  let sum = 0;
  forEachSpan(scan([polygon]), (_, from, to) => {
    sum += to - from;
  });
  return sum;
}
