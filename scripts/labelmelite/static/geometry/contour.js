/**
 * Contours that run on pixel edges: exact, derived from the bitmap, never stored.
 *
 * Pixel (x, y) covers the square from (x, y) to (x + 1, y + 1). The unit edges between mask and background are directed so
 * that the mask lies on their left as seen on the screen, and joined at whole-numbered corners. Where four edges meet, at
 * two diagonal mask pixels, those of the same pixel are joined. Filling all loops by the even-odd rule gives the mask
 * back bit for bit, so holes and single pixels survive.
 */

/** @typedef {import("./mask.js").Bitmap} Bitmap */
/**
 * @typedef {object} Loop
 * @property {Int32Array} points corners x0, y0, x1, y1, ... where the direction changes
 * @property {boolean} outer mask inside; otherwise a hole
 * @property {number} top smallest y
 * @property {number} bottom largest y
 */

// Directions, counter-clockwise on the screen, so that a turn to the left is + 1: up, left, down, right.
const DX = [0, -1, 0, 1];
const DY = [-1, 0, 1, 0];

/**
 * All contours of a mask.
 * @param {Bitmap} bitmap
 * @returns {Loop[]}
 */
export function trace(bitmap) {
  return traceRows(bitmap, -Infinity, Infinity);
}

/**
 * The contours after a change of some rows: the loops that do not touch them are kept as they are.
 * @param {Bitmap} bitmap the mask after the change
 * @param {Loop[]} loops its contours before the change
 * @param {number} top first changed row of the image
 * @param {number} bottom row after the last changed one
 * @returns {Loop[]}
 */
export function retrace(bitmap, loops, top, bottom) {
  const kept = loops.filter((loop) => loop.bottom < top || loop.top > bottom);
  return [...kept, ...traceRows(bitmap, top, bottom)];
}

/**
 * Contours with a corner between two heights. Each of them has an edge upwards in a row next to those heights, because a
 * closed loop goes up as often as down; so edges upwards, at the right of a mask pixel, are where walks begin.
 * @param {Bitmap} bitmap
 * @param {number} top
 * @param {number} bottom
 * @returns {Loop[]}
 */
function traceRows(bitmap, top, bottom) {
  const { width, height, data } = bitmap;
  const seen = new Uint8Array(width * height);
  const first = Math.max(0, top - 1 - bitmap.y);
  const end = Math.min(height, bottom + 1 - bitmap.y);
  /** @type {Loop[]} */
  const loops = [];
  for (let row = first; row < end; row++) {
    const start = row * width;
    for (let column = 0; column < width; column++) {
      const place = start + column;
      if (!data[place] || seen[place] || (column < width - 1 && data[place + 1])) continue;
      loops.push(walk(bitmap, seen, column, row));
    }
  }
  return loops;
}

/**
 * Follow one contour from the edge upwards at the right of a pixel.
 * @param {Bitmap} bitmap
 * @param {Uint8Array} seen marks the pixels whose right edge was walked
 * @param {number} column
 * @param {number} row
 * @returns {Loop}
 */
function walk({ x: left, y: top, width, height, data }, seen, column, row) {
  /** @type {number[]} */
  const points = [];
  const startX = column + 1;
  const startY = row + 1;
  let x = startX;
  let y = startY;
  let direction = 0;
  let low = y;
  let high = y;
  let doubleArea = 0;
  do {
    if (direction === 0) seen[(y - 1) * width + x - 1] = 1;
    const beforeX = x;
    const beforeY = y;
    x += DX[direction];
    y += DY[direction];
    doubleArea += beforeX * y - x * beforeY;
    if (y < low) low = y;
    else if (y > high) high = y;
    // The two pixels ahead of the new corner, left and right of the way.
    const aheadX = direction === 3 ? x : direction === 1 ? x - 1 : x - 1 + (direction === 2 ? 1 : 0);
    const aheadY = direction === 2 ? y : direction === 0 ? y - 1 : y - 1 + (direction === 1 ? 1 : 0);
    const leftAhead = aheadX >= 0 && aheadY >= 0 && aheadX < width && aheadY < height && data[aheadY * width + aheadX];
    const otherX = aheadX - DY[direction];
    const otherY = aheadY + DX[direction];
    const rightAhead = otherX >= 0 && otherY >= 0 && otherX < width && otherY < height && data[otherY * width + otherX];
    const turned = !leftAhead ? (direction + 1) & 3 : rightAhead ? (direction + 3) & 3 : direction;
    if (turned !== direction) points.push(left + x, top + y);
    direction = turned;
  } while (x !== startX || y !== startY || direction !== 0);
  return { points: Int32Array.from(points), outer: doubleArea < 0, top: top + low, bottom: top + high };
}

/**
 * The point of a loop nearest to a place: on edge `edge`, that is between corners edge and edge + 1.
 * @typedef {{edge: number, x: number, y: number, distance: number}} Near
 */

/**
 * @param {ArrayLike<number>} points
 * @param {number} x
 * @param {number} y
 * @returns {Near}
 */
export function nearest(points, x, y) {
  const near = { edge: 0, x: 0, y: 0, distance: Infinity };
  const count = points.length;
  let best = Infinity;
  for (let place = 0; place < count; place += 2) {
    const next = place + 2 < count ? place + 2 : 0;
    const x0 = points[place];
    const y0 = points[place + 1];
    const x1 = points[next];
    const y1 = points[next + 1];
    // Edges are upright or level, so the nearest point is found by holding the coordinates between the ends.
    const nearX = x0 < x1 ? Math.min(Math.max(x, x0), x1) : Math.min(Math.max(x, x1), x0);
    const nearY = y0 < y1 ? Math.min(Math.max(y, y0), y1) : Math.min(Math.max(y, y1), y0);
    const apart = (nearX - x) * (nearX - x) + (nearY - y) * (nearY - y);
    if (apart < best) {
      best = apart;
      near.edge = place / 2;
      near.x = nearX;
      near.y = nearY;
    }
  }
  near.distance = Math.sqrt(best);
  return near;
}

/**
 * The loop nearest to a place.
 * @param {Loop[]} loops
 * @param {number} x
 * @param {number} y
 * @returns {{loop: Loop, distance: number} | null} null if there is none
 */
export function nearestLoop(loops, x, y) {
  let best = null;
  for (const loop of loops) {
    const { distance } = nearest(loop.points, x, y);
    if (!best || distance < best.distance) best = { loop, distance };
  }
  return best;
}
