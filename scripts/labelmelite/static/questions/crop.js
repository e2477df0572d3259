// @ts-check
/** The part of a mask that a square crop shows, at the crop's resolution. No DOM. */

import { toRuns } from "../geometry/rle.js";

/**
 * Return which pixels of a crop lie in a mask.
 * @param {{size: [number, number], counts: string}} mask
 * @param {{x: number, y: number, side: number}} crop  In image pixels; it may reach beyond the image.
 * @param {number} side  Pixels of the crop's picture, which may show fewer or more pixels than the image has there.
 * @returns {Uint8Array}  side x side entries, row by row.
 */
export function cropOf(mask, crop, side) {
  const [height, width] = mask.size;
  const left = Math.max(0, Math.floor(crop.x));
  const top = Math.max(0, Math.floor(crop.y));
  const right = Math.min(width, Math.ceil(crop.x + crop.side));
  const bottom = Math.min(height, Math.ceil(crop.y + crop.side));
  const shown = new Uint8Array(side * side);
  if (right <= left || bottom <= top) return shown;
  const part = columnsOf(mask, left, top, right, bottom);
  const rows = bottom - top;
  const step = crop.side / side;
  for (let y = 0; y < side; y += 1) {
    const row = Math.floor(crop.y + (y + 0.5) * step) - top;
    if (row < 0 || row >= rows) continue;
    for (let x = 0; x < side; x += 1) {
      const column = Math.floor(crop.x + (x + 0.5) * step) - left;
      if (column >= 0 && column < right - left) shown[y * side + x] = part[column * rows + row];
    }
  }
  return shown;
}

/**
 * Return a rectangle of the mask, column by column as the runs are.
 * @param {{size: [number, number], counts: string}} mask
 * @param {number} left
 * @param {number} top
 * @param {number} right
 * @param {number} bottom
 */
function columnsOf(mask, left, top, right, bottom) {
  const height = mask.size[0];
  const rows = bottom - top;
  const part = new Uint8Array((right - left) * rows);
  let begin = 0;
  toRuns(mask).forEach((length, place) => {
    const end = begin + length;
    if (place % 2 === 1 && length > 0) {
      const last = Math.min(right - 1, Math.floor((end - 1) / height));
      for (let column = Math.max(left, Math.floor(begin / height)); column <= last; column += 1) {
        const from = Math.max(top, begin - column * height);
        const to = Math.min(bottom, end - column * height);
        if (to > from) part.fill(1, (column - left) * rows + from - top, (column - left) * rows + to - top);
      }
    }
    begin = end;
  });
  return part;
}
