/** A mask's parts and holes, and its neighbours: changes of a mask as a whole. */

import { blank, clip, has, over, stamp, trim } from "./mask.js";

/** @typedef {import("./mask.js").Bitmap} Bitmap */

/**
 * Label the pixels of one value; parts are joined over edges (four neighbours).
 * @param {Bitmap} bitmap
 * @param {number} value 0 or 1
 * @returns {{labels: Int32Array, areas: number[]}} labels from 1 on, 0 elsewhere; areas[label]
 */
function parts({ width, height, data }, value) {
  const labels = new Int32Array(width * height);
  const areas = [0];
  const stack = new Int32Array(width * height);
  for (let seed = 0; seed < data.length; seed++) {
    if (data[seed] !== value || labels[seed]) continue;
    const label = areas.length;
    let size = 0;
    let depth = 0;
    stack[depth++] = seed;
    labels[seed] = label;
    /** @param {number} place */
    const reach = (place) => {
      if (data[place] !== value || labels[place]) return;
      labels[place] = label;
      stack[depth++] = place;
    };
    while (depth) {
      const place = stack[--depth];
      const column = place % width;
      size += 1;
      if (column > 0) reach(place - 1);
      if (column < width - 1) reach(place + 1);
      if (place >= width) reach(place - width);
      if (place < data.length - width) reach(place + width);
    }
    areas.push(size);
  }
  return { labels, areas };
}

/**
 * The mask with its holes filled: background that the border of the box does not reach over edges.
 * @param {Bitmap} bitmap
 * @returns {Bitmap}
 */
export function fillHoles(bitmap) {
  const wide = over(bitmap, { x: bitmap.x - 1, y: bitmap.y - 1, width: bitmap.width + 2, height: bitmap.height + 2 });
  const { labels } = parts(wide, 0);
  // The frame of one pixel makes the outside one part, the first that the labelling meets.
  for (let place = 0; place < labels.length; place++) if (labels[place] !== 1) wide.data[place] = 1;
  return trim(wide);
}

/**
 * The largest part of a mask; on a tie the one that comes first in reading order.
 * @param {Bitmap} bitmap
 * @returns {Bitmap}
 */
export function largestPart(bitmap) {
  const { labels, areas } = parts(bitmap, 1);
  // A loop, for there may be more parts than a call takes arguments.
  let largest = 1;
  for (let label = 2; label < areas.length; label++) if (areas[label] > areas[largest]) largest = label;
  const result = blank(bitmap);
  for (let place = 0; place < labels.length; place++) if (labels[place] === largest) result.data[place] = 1;
  return trim(result);
}

/**
 * The mask and its four neighbours, inside the image.
 * @param {Bitmap} bitmap
 * @param {number} imageWidth
 * @param {number} imageHeight
 * @returns {Bitmap}
 */
export function grow(bitmap, imageWidth, imageHeight) {
  if (!bitmap.width) return bitmap;
  const { x, y, width, height } = bitmap;
  const result = over(bitmap, { x: x - 1, y: y - 1, width: width + 2, height: height + 2 });
  for (const [dx, dy] of NEIGHBOURS) stamp(result, { ...bitmap, x: x + dx, y: y + dy }, "set");
  return clip(result, imageWidth, imageHeight);
}

/**
 * The mask without the pixels that have a neighbour outside it; the edge of the image counts as inside.
 * @param {Bitmap} bitmap
 * @param {number} imageWidth
 * @param {number} imageHeight
 * @returns {Bitmap}
 */
export function shrink(bitmap, imageWidth, imageHeight) {
  const result = over(bitmap, bitmap);
  for (let row = 0; row < bitmap.height; row++) {
    for (let column = 0; column < bitmap.width; column++) {
      const x = bitmap.x + column;
      const y = bitmap.y + row;
      const inside = NEIGHBOURS.every(([dx, dy]) => {
        const outside = x + dx < 0 || y + dy < 0 || x + dx >= imageWidth || y + dy >= imageHeight;
        return outside || has(bitmap, x + dx, y + dy);
      });
      if (!inside) result.data[row * bitmap.width + column] = 0;
    }
  }
  return trim(result);
}

const NEIGHBOURS = [
  [1, 0],
  [-1, 0],
  [0, 1],
  [0, -1],
];
