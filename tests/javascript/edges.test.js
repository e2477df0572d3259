import assert from "node:assert/strict";
import { test } from "node:test";

import { trace } from "../../scripts/labelmelite/static/geometry/contour.js";
import { brightness, canny, cheapestClosedPath, snap } from "../../scripts/labelmelite/static/geometry/edges.js";
import { fill } from "../../scripts/labelmelite/static/geometry/fill.js";
import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import { replaceLoop } from "../../scripts/labelmelite/static/geometry/reroute.js";
import { generator } from "./random.js";

const SIDE = 80;

/** A picture that is bright inside a shape. @param {(x: number, y: number) => boolean} inside @param {number} [contrast] */
function picture(inside, contrast = 150) {
  const grey = new Float32Array(SIDE * SIDE);
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++) grey[y * SIDE + x] = 40 + (inside(x + 0.5, y + 0.5) ? contrast : 0);
  return grey;
}

/** @param {number} x @param {number} y @param {number} radius */
const disc = (x, y, radius) => (/** @type {number} */ px, /** @type {number} */ py) => Math.hypot(px - x, py - y) <= radius;

/** @param {(x: number, y: number) => boolean} inside */
function bitmapOf(inside) {
  const data = Uint8Array.from(picture(inside), (value) => (value > 100 ? 1 : 0));
  return mask.trim({ x: 0, y: 0, width: SIDE, height: SIDE, data });
}

/** @param {any} bitmap @param {Float32Array} grey */
function snapped(bitmap, grey) {
  const edges = canny(grey, SIDE, SIDE);
  const where = { x: 0, y: 0, imageWidth: SIDE, imageHeight: SIDE };
  return trace(bitmap).reduce(
    (result, loop) => replaceLoop(result, loop, snap(loop.points, edges, where), { width: SIDE, height: SIDE }),
    bitmap,
  );
}

/** @param {any} a @param {any} b */
const iou = (a, b) => 1 - mask.area(mask.xor(a, b)) / mask.area(mask.union(a, b));

test("a step is one thin edge, a level picture has none", () => {
  const { edge } = canny(picture((x) => x > 40), SIDE, SIDE);
  for (let y = 0; y < SIDE; y++) {
    const columns = Array.from({ length: SIDE }, (_, x) => x).filter((x) => edge[y * SIDE + x]);
    assert.deepEqual(columns, [39]);
  }
  assert.ok(canny(picture(() => true), SIDE, SIDE).edge.every((value) => value === 0));
});

test("weak edges stay only where they are joined to strong ones", () => {
  // Gradients of a step are four times its height: 80 is weak, 200 strong.
  const grey = picture(() => false);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 20; x < 40; x++) grey[y * SIDE + x] += y < 40 ? 50 : 20;
    for (let x = 60; x < SIDE; x++) grey[y * SIDE + x] += 20;
  }
  const { edge } = canny(grey, SIDE, SIDE);
  const at = (/** @type {number} */ x, /** @type {number} */ y) => edge[y * SIDE + x] || edge[y * SIDE + x - 1];
  assert.ok(at(20, 10) && at(20, 70), "the weak half is joined to the strong one");
  assert.ok(!at(60, 10) && !at(60, 70), "the weak edge alone is dropped");
});

test("a contour that is off by two pixels snaps to the edge", () => {
  const grey = picture(disc(40, 40, 20));
  const truth = bitmapOf(disc(40, 40, 20));
  for (const wrong of [disc(40, 40, 22), disc(40, 40, 18), disc(41.5, 39, 20)]) {
    const before = iou(bitmapOf(wrong), truth);
    const after = iou(snapped(bitmapOf(wrong), grey), truth);
    assert.ok(after > 0.97 && after > before, `${before} became ${after}`);
  }
});

test("an exact contour stays nearly as it is, and one without an edge too", () => {
  const truth = bitmapOf(disc(40, 40, 20));
  assert.ok(iou(snapped(truth, picture(disc(40, 40, 20))), truth) > 0.98);
  assert.ok(iou(snapped(truth, picture(() => false)), truth) > 0.97);
});

test("a contour moves by at most the band, and not on the image's edge", () => {
  const truth = bitmapOf((x, y) => x < 30 && y < 30);
  const result = snapped(truth, picture(disc(40, 40, 10)));
  assert.ok(mask.has(result, 0, 0) && mask.has(result, 0, 20) && mask.has(result, 20, 0));
  assert.ok(result.width <= 34 && result.height <= 34);
});

test("the cheapest closed path is the cheapest of all", () => {
  const random = generator(21);
  for (let round = 0; round < 40; round++) {
    const [count, lanes] = [2 + Math.floor(random() * 4), 3];
    const costs = Float64Array.from({ length: count * lanes }, () => random());
    const price = (/** @type {ArrayLike<number>} */ path) => {
      let sum = 0;
      for (let step = 0; step < count; step++) {
        const change = Math.abs(path[step] - path[(step + 1) % count]);
        sum += costs[step * lanes + path[step]] + (change > 1 ? Infinity : 0.15 * change);
      }
      return sum;
    };
    let best = Infinity;
    for (let code = 0; code < lanes ** count; code++) {
      best = Math.min(best, price(Array.from({ length: count }, (_, step) => Math.floor(code / lanes ** step) % lanes)));
    }
    assert.ok(Math.abs(price(cheapestClosedPath(costs, count, lanes)) - best) < 1e-9);
  }
});

test("brightness weighs green most", () => {
  assert.deepEqual(Array.from(brightness([255, 255, 255, 255, 0, 0, 0, 0])).map(Math.round), [255, 0]);
  const [red, green, blue] = brightness([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255]);
  assert.ok(green > red && red > blue);
});

test("a loop too short to have a direction stays", () => {
  const dot = mask.trim({ x: 0, y: 0, width: 3, height: 1, data: Uint8Array.from([0, 1, 0]) });
  const edges = canny(new Float32Array(SIDE * SIDE), SIDE, SIDE);
  const [loop] = trace(dot);
  const where = { x: 0, y: 0, imageWidth: SIDE, imageHeight: SIDE };
  assert.deepEqual(Array.from(snap(loop.points, edges, where)), Array.from(loop.points));
  assert.ok(mask.equal(fill(loop.points), dot));
});
