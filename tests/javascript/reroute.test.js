import assert from "node:assert/strict";
import { test } from "node:test";

import { trace } from "../../scripts/labelmelite/static/geometry/contour.js";
import { fill } from "../../scripts/labelmelite/static/geometry/fill.js";
import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import { apply, plan, removeLoop } from "../../scripts/labelmelite/static/geometry/reroute.js";
import { generator, randomMask } from "./random.js";

const image = { width: 60, height: 60 };
const options = { ...image, zoom: 4 };

/** A square from 20 to 40 with an optional hole from 28 to 32. @param {boolean} [hole] */
function square(hole = false) {
  return mask.trim(fill([20, 20, 40, 20, 40, 40, 20, 40], ...(hole ? [[28, 28, 32, 28, 32, 32, 28, 32]] : [])));
}

/** @param {any} bitmap @param {number[]} drawn @param {any} [more] @param {boolean} [outer] */
function reroute(bitmap, drawn, more = {}, outer = true) {
  const loop = trace(bitmap).filter((one) => one.outer === outer)[0];
  const planned = plan(loop, drawn, { ...options, ...more });
  return { planned, loop, after: apply(bitmap, loop, planned, image) };
}

test("a trace outside adds what it encloses", () => {
  const { after, planned } = reroute(square(), [20, 25, 10, 25, 10, 35, 20, 35]);
  assert.equal(planned.closed, false);
  assert.ok(mask.equal(after, mask.union(square(), fill([10, 25, 20, 25, 20, 35, 10, 35]))));
});

test("a trace inside cuts the smaller part off", () => {
  const { after } = reroute(square(), [20, 24, 40, 24]);
  assert.ok(mask.equal(after, mask.trim(fill([20, 24, 40, 24, 40, 40, 20, 40]))));
});

test("the other route is kept on request", () => {
  const { after, planned } = reroute(square(), [20, 24, 40, 24], { swap: true });
  assert.equal(planned.swapped, true);
  assert.ok(mask.equal(after, mask.trim(fill([20, 20, 40, 20, 40, 24, 20, 24]))));
});

test("kept and dropped route together are the contour", () => {
  const { planned } = reroute(square(), [20, 24, 40, 24]);
  /** @param {Float64Array} points */
  const long = (points) => {
    let sum = 0;
    for (let place = 2; place < points.length; place += 2) {
      sum += Math.abs(points[place] - points[place - 2]) + Math.abs(points[place + 1] - points[place - 1]);
    }
    return sum;
  };
  assert.equal(long(planned.kept) + long(planned.dropped), 80);
  assert.equal(long(planned.kept), 20 + 16 + 16);
});

test("on a tie the longer route is kept", () => {
  // The trace halves the square; the left half's route has two notches more, so the same pixels and a longer way.
  const notched = mask.union(mask.difference(square(), fill([20, 29, 22, 29, 22, 31, 20, 31])), fill([18, 24, 20, 24, 20, 26, 18, 26]));
  const { after } = reroute(notched, [30, 20, 30, 40]);
  assert.equal(mask.area(after), 200);
  assert.ok(mask.has(after, 18, 24));
});

test("a hole in the kept area stays, one in the dropped area goes with it", () => {
  const kept = reroute(square(true), [20, 24, 40, 24]).after;
  assert.ok(!mask.has(kept, 29, 29) && mask.has(kept, 21, 30));
  const dropped = reroute(square(true), [20, 34, 40, 34], { swap: true }).after;
  assert.ok(mask.equal(dropped, mask.trim(fill([20, 34, 40, 34, 40, 40, 20, 40]))));
});

test("another part stays", () => {
  const part = { ...fill([50, 50, 55, 50, 55, 55, 50, 55]) };
  const both = mask.union(square(), part);
  const loop = trace(both).filter((one) => one.top === 20)[0];
  const after = apply(both, loop, plan(loop, [20, 24, 40, 24], options), image);
  assert.ok(mask.equal(after, mask.union(part, mask.trim(fill([20, 24, 40, 24, 40, 40, 20, 40])))));
});

test("a hole's boundary is rerouted the other way round", () => {
  const { after } = reroute(square(true), [28, 28, 24, 30, 28, 32], {}, false);
  assert.ok(!mask.has(after, 26, 29), "the hole has grown");
  assert.equal(mask.area(after) < mask.area(square(true)), true);
});

test("a closed loop inside is a hole, and a part on request", () => {
  const loop = [28, 28, 32, 28, 32, 32, 28, 32, 28, 28.5];
  const { after, planned } = reroute(square(), loop);
  assert.equal(planned.closed, true);
  assert.ok(mask.equal(after, square(true)));
  assert.ok(mask.equal(reroute(square(), loop, { swap: true }).after, square()));
});

test("a closed loop outside is a new part", () => {
  const { after, planned } = reroute(square(), [50, 50, 55, 50, 55, 55, 50, 55, 50, 50.5]);
  assert.equal(planned.closed, true);
  assert.ok(mask.equal(after, mask.union(square(), fill([50, 50, 55, 50, 55, 55, 50, 55]))));
});

test("near the contour a trace does not close", () => {
  const { planned } = reroute(square(), [22, 30, 24, 28, 24, 32, 22, 31]);
  assert.equal(planned.closed, false);
});

test("tails within 20 screen pixels are cut at the contour", () => {
  // Begins 3 pixels inside, which is 12 screen pixels at this zoom, and ends likewise.
  const { after, planned } = reroute(square(), [23, 25, 10, 25, 10, 35, 23, 35]);
  assert.ok(mask.equal(after, mask.union(square(), fill([10, 25, 20, 25, 20, 35, 10, 35]))));
  assert.deepEqual([planned.trace[0], planned.trace[1]], [20, 25]);
  const far = reroute(square(), [27, 25, 10, 25, 10, 35, 27, 35]).planned;
  assert.notDeepEqual([far.trace[2], far.trace[3]], [20, 25]);
});

test("a trace leaves the image at its edge", () => {
  const bitmap = mask.trim(fill([0, 0, 10, 0, 10, 10, 0, 10]));
  const { after, planned } = reroute(bitmap, [10, 5, 30, -40, -20, -20, 0, 5]);
  assert.ok(Array.from(planned.trace).every((value) => value >= 0));
  assert.ok(after.x >= 0 && after.y >= 0);
});

test("both ends at one point take the whole contour or nothing of it", () => {
  const { planned } = reroute(square(), [20, 30, 12, 24, 12, 36, 20, 30]);
  assert.equal(planned.closed, false);
  assert.ok(planned.kept.length > planned.dropped.length);
});

test("a trace of one point changes nothing", () => {
  assert.ok(mask.equal(reroute(square(), [20, 30]).after, square()));
});

test("no pixel outside what is gained and dropped changes", () => {
  const random = generator(11);
  let changed = 0;
  for (let round = 0; round < 1500; round++) {
    const [width, height] = [8 + Math.floor(random() * 30), 8 + Math.floor(random() * 30)];
    const bitmap = mask.trim(randomMask(random, width, height));
    const loops = trace(bitmap);
    if (!loops.length) continue;
    const loop = loops[Math.floor(random() * loops.length)];
    const drawn = Array.from({ length: 2 * (1 + Math.floor(random() * 12)) }, () => random() * 50 - 8);
    const planned = plan(loop, drawn, { zoom: 0.5 + 8 * random(), width, height, swap: random() < 0.3 });
    const after = apply(bitmap, loop, planned, { width, height });
    const inside = fill(planned.polygon);
    const allowed = planned.closed ? inside : mask.xor(inside, fill(loop.points));
    const difference = mask.xor(bitmap, after);
    assert.equal(mask.difference(difference, allowed).width, 0);
    assert.ok(after.x >= 0 && after.y >= 0 && after.x + after.width <= width && after.y + after.height <= height);
    changed += difference.width ? 1 : 0;
  }
  assert.ok(changed > 800, `${changed} of the rounds changed something`);
});

test("taking a contour away removes a part or fills a hole", () => {
  const ring = square(true);
  const [outer] = trace(ring).filter((loop) => loop.outer);
  const [hole] = trace(ring).filter((loop) => !loop.outer);
  assert.ok(mask.equal(removeLoop(ring, hole), square()));
  assert.equal(removeLoop(ring, outer).width, 0);
});
