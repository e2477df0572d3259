/**
 * COCO polygons and boxes to masks, bit for bit as pycocotools does it. For what people draw see fill.js, whose rule is simpler.
 */

import { MaskError, checkedSize, formatCounts, merge } from "./rle.js";

/** @typedef {import("./rle.js").Rle} Rle */

/**
 * Mask of COCO polygons, whose parts are united.
 * @param {number[][]} polygons each part x0, y0, x1, y1, ... of at least three points, in pixels
 * @param {number} height
 * @param {number} width
 * @returns {Rle}
 */
export function fromPolygons(polygons, height, width) {
  checkedSize([height, width]);
  if (!polygons.length) throw new MaskError("has no polygon");
  const parts = polygons.map((part, number) => {
    if (part.length < 6) throw new MaskError(`has a polygon (part ${number}) of fewer than three points`);
    if (part.length % 2) throw new MaskError(`has a polygon (part ${number}) with an odd number of coordinates`);
    const wrong = part.find((value) => !(Math.abs(value) <= FAR * (height + width)));
    if (wrong !== undefined) throw new MaskError(`has a polygon (part ${number}) with the coordinate ${wrong}`);
    return fromPolygon(part, height, width);
  });
  return merge(parts);
}

/** The rasteriser walks along every edge, so coordinates far outside the image cost time for nothing. */
const FAR = 10;

/**
 * Mask of a box [x, y, width, height]: the polygon of its corners.
 * @param {number[]} box
 * @param {number} height
 * @param {number} width
 * @returns {Rle}
 */
export function fromBox([x, y, w, h], height, width) {
  return fromPolygons([[x, y, x, y + h, x + w, y + h, x + w, y]], height, width);
}

/** pycocotools draws outlines on a grid this many times finer than the pixels. */
const SCALE = 5;

/**
 * Mask of one polygon. The outline is walked on the finer grid; where it steps from one fine column to the next, and
 * the step is the one in the middle of a pixel column, the colour changes at that height.
 * @param {number[]} polygon
 * @param {number} height
 * @param {number} width
 * @returns {Rle}
 */
function fromPolygon(polygon, height, width) {
  const corners = polygon.map((value) => Math.trunc(SCALE * value + 0.5));
  /** @type {number[]} */
  const changes = [];
  let beforeX = NaN;
  let beforeY = NaN;
  walkOutline(corners, (x, y) => {
    if (beforeX === beforeX && x !== beforeX) {
      const column = ((x < beforeX ? x : x - 1) + 0.5) / SCALE - 0.5;
      if (Number.isInteger(column) && column >= 0 && column <= width - 1) {
        const row = ((y < beforeY ? y : beforeY) + 0.5) / SCALE - 0.5;
        changes.push(column * height + Math.ceil(Math.min(Math.max(row, 0), height)));
      }
    }
    beforeX = x;
    beforeY = y;
  });
  changes.push(height * width);
  return { size: [height, width], counts: formatCounts(runsBetween(Float64Array.from(changes).sort())) };
}

/**
 * Visit every point of a closed outline on the fine grid, both ends of each edge included. An edge is drawn from its
 * lower coordinate upwards whatever its direction, so that rounding does not depend on the direction.
 * @param {number[]} corners
 * @param {(x: number, y: number) => void} visit
 */
function walkOutline(corners, visit) {
  const count = corners.length;
  for (let place = 0; place < count; place += 2) {
    let [fromX, fromY] = [corners[place], corners[place + 1]];
    let [toX, toY] = [corners[(place + 2) % count], corners[(place + 3) % count]];
    const across = Math.abs(toX - fromX);
    const down = Math.abs(toY - fromY);
    const flat = across >= down;
    const flip = flat ? fromX > toX : fromY > toY;
    if (flip) [fromX, fromY, toX, toY] = [toX, toY, fromX, fromY];
    const steps = Math.max(across, down);
    const slope = steps === 0 ? 0 : (flat ? toY - fromY : toX - fromX) / steps;
    for (let step = 0; step <= steps; step++) {
      const along = flip ? steps - step : step;
      if (flat) visit(fromX + along, Math.trunc(fromY + slope * along + 0.5));
      else visit(Math.trunc(fromX + slope * along + 0.5), fromY + along);
    }
  }
}

/**
 * Runs between sorted places where the colour changes; two changes at one place cancel.
 * @param {Float64Array} changes
 * @returns {number[]}
 */
function runsBetween(changes) {
  /** @type {number[]} */
  const runs = [];
  let before = 0;
  for (let place = 0; place < changes.length; place++) {
    const run = changes[place] - before;
    before = changes[place];
    if (run > 0 || place === 0) runs.push(run);
    else if (++place < changes.length) {
      runs[runs.length - 1] += changes[place] - before;
      before = changes[place];
    }
  }
  return runs;
}
