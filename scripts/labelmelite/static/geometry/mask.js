/**
 * Bitmaps cropped to a box, the truth about every object: one byte a pixel, row by row, with the place of the crop.
 *
 * All functions return new bitmaps and leave their arguments alone, unless their name says otherwise. An empty mask has
 * width and height zero.
 */

import { forEachColumnRun, formatCounts, box as rleBox } from "./rle.js";

/** @typedef {import("./rle.js").Rle} Rle */
/**
 * @typedef {object} Bitmap
 * @property {number} x left column in the image
 * @property {number} y top row in the image
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array} data height x width values 0 or 1
 */
/** @typedef {{x: number, y: number, width: number, height: number}} Box */

/**
 * An all-zero bitmap over a box.
 * @param {Box} box
 * @returns {Bitmap}
 */
export function blank({ x, y, width, height }) {
  return { x, y, width, height, data: new Uint8Array(width * height) };
}

/** @returns {Bitmap} */
export function empty() {
  return blank({ x: 0, y: 0, width: 0, height: 0 });
}

/**
 * @param {Rle} rle
 * @returns {Bitmap}
 */
export function fromRle(rle) {
  const [x, y, width, height] = rleBox(rle);
  const bitmap = blank({ x, y, width, height });
  const { data } = bitmap;
  forEachColumnRun(rle, (column, top, bottom) => {
    const end = (bottom - y) * width;
    for (let place = (top - y) * width + column - x; place < end; place += width) data[place] = 1;
  });
  return bitmap;
}

/**
 * Run lengths at image size. Colour changes are found row by row, in the order of memory, and sorted into columns.
 * @param {Bitmap} bitmap inside the image
 * @param {number} imageHeight
 * @param {number} imageWidth
 * @returns {Rle}
 */
export function toRle(bitmap, imageHeight, imageWidth) {
  const { x, y, width } = bitmap;
  const starts = new Uint32Array(width + 1);
  forEachChange(bitmap, (column) => starts[column + 1]++);
  for (let column = 0; column < width; column++) starts[column + 1] += starts[column];
  const rows = new Uint32Array(starts[width]);
  const next = starts.slice();
  forEachChange(bitmap, (column, row) => (rows[next[column]++] = row));
  /** @type {number[]} */
  const runs = [];
  let before = 0;
  for (let column = 0; column < width; column++) {
    for (let place = starts[column]; place < starts[column + 1]; place++) {
      const position = (x + column) * imageHeight + y + rows[place];
      // A run that ends at the bottom and one that starts at the next column's top are one run.
      if (position === before && runs.length) before -= /** @type {number} */ (runs.pop());
      else {
        runs.push(position - before);
        before = position;
      }
    }
  }
  const rest = imageHeight * imageWidth - before;
  if (rest > 0) runs.push(rest);
  return { size: [imageHeight, imageWidth], counts: formatCounts(runs) };
}

/**
 * @param {Bitmap} bitmap
 * @param {(column: number, row: number) => void} visit
 */
function forEachChange({ width, height, data }, visit) {
  for (let column = 0; column < width; column++) if (data[column]) visit(column, 0);
  for (let row = 1; row < height; row++) {
    const start = row * width;
    for (let place = start; place < start + width; place++) {
      if (data[place] !== data[place - width]) visit(place - start, row);
    }
  }
  const last = (height - 1) * width;
  for (let column = 0; column < width; column++) if (data[last + column]) visit(column, height);
}

/**
 * @param {Bitmap} bitmap
 * @returns {number}
 */
export function area({ data }) {
  let sum = 0;
  for (let place = 0; place < data.length; place++) sum += data[place];
  return sum;
}

/**
 * Whether the pixel at column x and row y of the image is in the mask.
 * @param {Bitmap} bitmap
 * @param {number} x
 * @param {number} y
 * @returns {boolean}
 */
export function has(bitmap, x, y) {
  const column = x - bitmap.x;
  const row = y - bitmap.y;
  if (column < 0 || row < 0 || column >= bitmap.width || row >= bitmap.height) return false;
  return bitmap.data[row * bitmap.width + column] === 1;
}

/**
 * Box around both; a box without pixels counts for nothing.
 * @param {Box} a
 * @param {Box} b
 * @returns {Box}
 */
export function hull(a, b) {
  if (!a.width || !a.height) return { x: b.x, y: b.y, width: b.width, height: b.height };
  if (!b.width || !b.height) return { x: a.x, y: a.y, width: a.width, height: a.height };
  const x = Math.min(a.x, b.x);
  const y = Math.min(a.y, b.y);
  return {
    x,
    y,
    width: Math.max(a.x + a.width, b.x + b.width) - x,
    height: Math.max(a.y + a.height, b.y + b.height) - y,
  };
}

/**
 * Box inside both, with width or height zero when they do not meet.
 * @param {Box} a
 * @param {Box} b
 * @returns {Box}
 */
export function overlap(a, b) {
  const x = Math.max(a.x, b.x);
  const y = Math.max(a.y, b.y);
  return {
    x,
    y,
    width: Math.max(0, Math.min(a.x + a.width, b.x + b.width) - x),
    height: Math.max(0, Math.min(a.y + a.height, b.y + b.height) - y),
  };
}

/**
 * The same pixels over another box: enlarged with zeros, or cut.
 * @param {Bitmap} bitmap
 * @param {Box} box
 * @returns {Bitmap}
 */
export function over(bitmap, box) {
  const result = blank(box);
  const shared = overlap(bitmap, box);
  if (!shared.width) return result;
  for (let row = shared.y; row < shared.y + shared.height; row++) {
    const from = (row - bitmap.y) * bitmap.width + shared.x - bitmap.x;
    result.data.set(
      bitmap.data.subarray(from, from + shared.width),
      (row - box.y) * box.width + shared.x - box.x,
    );
  }
  return result;
}

/**
 * The same pixels over the smallest box.
 * @param {Bitmap} bitmap
 * @returns {Bitmap}
 */
export function trim(bitmap) {
  const { width, height, data } = bitmap;
  const first = data.indexOf(1);
  if (first < 0) return empty();
  const top = Math.floor(first / width);
  const bottom = Math.floor(data.lastIndexOf(1) / width);
  let left = width;
  let right = -1;
  for (let row = top; row <= bottom; row++) {
    const start = row * width;
    for (let column = 0; column < left; column++) if (data[start + column]) left = column;
    for (let column = width - 1; column > right; column--) if (data[start + column]) right = column;
  }
  if (top === 0 && left === 0 && bottom === height - 1 && right === width - 1) return bitmap;
  return over(bitmap, { x: bitmap.x + left, y: bitmap.y + top, width: right - left + 1, height: bottom - top + 1 });
}

/**
 * Set, clear or flip pixels of the first bitmap, in place, where the second one is set and they meet.
 * @param {Bitmap} target
 * @param {Bitmap} source
 * @param {"set" | "clear" | "flip"} how
 */
export function stamp(target, source, how) {
  const shared = overlap(target, source);
  const { data } = target;
  for (let row = shared.y; row < shared.y + shared.height; row++) {
    let to = (row - target.y) * target.width + shared.x - target.x;
    let from = (row - source.y) * source.width + shared.x - source.x;
    for (const end = from + shared.width; from < end; from++, to++) {
      if (!source.data[from]) continue;
      if (how === "flip") data[to] ^= 1;
      else data[to] = how === "set" ? 1 : 0;
    }
  }
}

/**
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {Bitmap}
 */
export function union(a, b) {
  const result = over(a, hull(a, b));
  stamp(result, b, "set");
  return trim(result);
}

/**
 * Pixels of the first mask that are not in the second.
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {Bitmap}
 */
export function difference(a, b) {
  const result = over(a, a);
  stamp(result, b, "clear");
  return trim(result);
}

/**
 * Pixels that are in both masks.
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {Bitmap}
 */
export function intersection(a, b) {
  const shared = overlap(a, b);
  const result = over(a, shared);
  const other = over(b, shared).data;
  for (let place = 0; place < other.length; place++) result.data[place] &= other[place];
  return trim(result);
}

/**
 * Box around the pixels that are in one mask only; width and height are zero if there are none.
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {Box}
 */
export function changedBox(a, b) {
  const both = hull(a, b);
  const one = over(a, both).data;
  const other = over(b, both).data;
  let [left, right, top, bottom] = [both.width, -1, -1, -1];
  for (let row = 0, place = 0; row < both.height; row++) {
    for (let column = 0; column < both.width; column++, place++) {
      if (one[place] === other[place]) continue;
      if (top < 0) top = row;
      bottom = row;
      if (column < left) left = column;
      if (column > right) right = column;
    }
  }
  if (top < 0) return { x: 0, y: 0, width: 0, height: 0 };
  return { x: both.x + left, y: both.y + top, width: right - left + 1, height: bottom - top + 1 };
}

/**
 * Pixels that are in one mask only.
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {Bitmap}
 */
export function xor(a, b) {
  const result = over(a, hull(a, b));
  stamp(result, b, "flip");
  return trim(result);
}

/**
 * Whether both masks hold the same pixels, whatever their boxes.
 * @param {Bitmap} a
 * @param {Bitmap} b
 * @returns {boolean}
 */
export function equal(a, b) {
  return changedBox(a, b).width === 0;
}

/**
 * The part of a mask that lies in the image.
 * @param {Bitmap} bitmap
 * @param {number} imageWidth
 * @param {number} imageHeight
 * @returns {Bitmap}
 */
export function clip(bitmap, imageWidth, imageHeight) {
  const image = { x: 0, y: 0, width: imageWidth, height: imageHeight };
  return trim(over(bitmap, overlap(bitmap, image)));
}

/**
 * Pixels whose centre is within half a diameter of the segment: one piece of a brush stroke.
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 * @param {number} diameter in pixels; at least the pixel under the point is set
 * @returns {Bitmap}
 */
export function capsule(x0, y0, x1, y1, diameter) {
  const radius = diameter / 2;
  const left = Math.floor(Math.min(x0, x1) - radius);
  const top = Math.floor(Math.min(y0, y1) - radius);
  const result = blank({
    x: left,
    y: top,
    width: Math.ceil(Math.max(x0, x1) + radius) - left + 1,
    height: Math.ceil(Math.max(y0, y1) + radius) - top + 1,
  });
  const dx = x1 - x0;
  const dy = y1 - y0;
  const length = dx * dx + dy * dy;
  for (let row = 0; row < result.height; row++) {
    for (let column = 0; column < result.width; column++) {
      const px = left + column + 0.5 - x0;
      const py = top + row + 0.5 - y0;
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const apart = (px - along * dx) ** 2 + (py - along * dy) ** 2;
      if (apart <= radius * radius) result.data[row * result.width + column] = 1;
    }
  }
  const under = (Math.floor(y1) - top) * result.width + Math.floor(x1) - left;
  result.data[under] = 1;
  return result;
}
