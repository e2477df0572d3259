import assert from "node:assert/strict";
import { test } from "node:test";

import { nearest, nearestLoop, retrace, trace } from "../../scripts/labelmelite/static/geometry/contour.js";
import { count, fill } from "../../scripts/labelmelite/static/geometry/fill.js";
import { fillHoles, grow, largestPart, shrink } from "../../scripts/labelmelite/static/geometry/morphology.js";
import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import { drawn, generator, randomMask } from "./random.js";

/** @param {number} rounds @param {(random: () => number, bitmap: any, other: any) => void} check */
function onRandomMasks(rounds, check) {
  const random = generator(rounds);
  for (let round = 0; round < rounds; round++) {
    const [width, height] = [1 + Math.floor(random() * 16), 1 + Math.floor(random() * 16)];
    check(random, randomMask(random, width, height), randomMask(random, width, height));
  }
}

/** @param {any} a @param {any} b @param {(inA: boolean, inB: boolean) => boolean} rule */
function pixelwise(a, b, rule) {
  return { ...a, data: Uint8Array.from(a.data, (/** @type {number} */ value, /** @type {number} */ place) => (rule(value === 1, b.data[place] === 1) ? 1 : 0)) };
}

test("union, difference and exclusive or are those of the pixels", () => {
  onRandomMasks(1000, (_, a, b) => {
    const [first, second] = [mask.trim(a), mask.trim(b)];
    assert.ok(mask.equal(mask.union(first, second), pixelwise(a, b, (p, q) => p || q)));
    assert.ok(mask.equal(mask.difference(first, second), pixelwise(a, b, (p, q) => p && !q)));
    assert.ok(mask.equal(mask.xor(first, second), pixelwise(a, b, (p, q) => p !== q)));
    assert.ok(mask.equal(mask.intersection(first, second), pixelwise(a, b, (p, q) => p && q)));
    const { x, y, width, height } = mask.xor(first, second);
    assert.deepEqual(mask.changedBox(first, second), { x, y, width, height });
    assert.equal(mask.area(first), a.data.reduce((/** @type {number} */ sum, /** @type {number} */ value) => sum + value, 0));
  });
});

test("trimming leaves the smallest box, and the same pixels", () => {
  onRandomMasks(500, (_, a) => {
    const small = mask.trim(a);
    assert.ok(mask.equal(small, a));
    if (!small.width) return;
    const { x, y, width, height } = small;
    const columns = new Set(Array.from(small.data.keys()).filter((place) => small.data[place]).map((place) => place % width));
    const rows = new Set(Array.from(small.data.keys()).filter((place) => small.data[place]).map((place) => Math.floor(place / width)));
    assert.ok(columns.has(0) && columns.has(width - 1) && rows.has(0) && rows.has(height - 1), `${x} ${y}`);
  });
});

test("contours give the mask back bit for bit", () => {
  onRandomMasks(3000, (_, a) => {
    const loops = trace(a);
    assert.ok(mask.equal(fill(...loops.map((loop) => loop.points)), a));
    let each = mask.empty();
    for (const loop of loops) each = mask.xor(each, fill(loop.points));
    assert.ok(mask.equal(each, a));
  });
});

test("a filled polygon has as many pixels as its count says", () => {
  const random = generator(5);
  for (let round = 0; round < 1000; round++) {
    const polygon = Array.from({ length: 2 * (3 + Math.floor(random() * 7)) }, () => random() * 30 - 5);
    assert.equal(count(polygon), mask.area(fill(polygon)));
  }
});

test("polygons that share an edge share no pixel and leave none out", () => {
  const random = generator(6);
  for (let round = 0; round < 1000; round++) {
    const [x, y] = [random() * 10, random() * 10];
    const corners = [[-0.5, -0.25], [12.25, -1], [11, 11.5], [-1, 12]];
    const parts = corners.map(([x0, y0], place) => {
      const [x1, y1] = corners[(place + 1) % 4];
      return fill([x, y, x0, y0, x1, y1]);
    });
    let sum = 0;
    let all = mask.empty();
    for (const part of parts) {
      sum += mask.area(part);
      all = mask.union(all, part);
    }
    assert.equal(sum, mask.area(all));
    assert.ok(mask.equal(all, fill(corners.flat())));
  }
});

test("holes run the other way than parts", () => {
  const loops = trace(drawn("#####", "#...#", "#.#.#", "#...#", "#####"));
  assert.deepEqual(loops.map((loop) => [loop.outer, loop.points.length / 2]).sort(), [[false, 4], [true, 4], [true, 4]]);
});

test("diagonal pixels are two parts", () => {
  assert.equal(trace(drawn("#.", ".#")).length, 2);
  assert.equal(trace(drawn("##.", "#.#", ".##")).length, 2);
});

test("after a change of some rows only loops that touch them are traced again", () => {
  onRandomMasks(2000, (random, before) => {
    const loops = trace(before);
    const top = Math.floor(random() * before.height);
    const bottom = top + 1 + Math.floor(random() * (before.height - top));
    const after = { ...before, data: before.data.slice() };
    for (let row = top; row < bottom; row++) {
      for (let column = 0; column < before.width; column++) after.data[row * before.width + column] = random() < 0.5 ? 1 : 0;
    }
    const again = retrace(after, loops, top, bottom);
    /** @param {any[]} list */
    const sorted = (list) => list.map((loop) => canonical(loop)).sort();
    assert.deepEqual(sorted(again), sorted(trace(after)));
  });
});

/** A loop as text that does not depend on where it begins. @param {any} loop */
function canonical({ points, outer }) {
  const pairs = Array.from({ length: points.length / 2 }, (_, place) => `${points[2 * place]},${points[2 * place + 1]}`);
  const first = pairs.indexOf([...pairs].sort()[0]);
  return `${outer} ${[...pairs.slice(first), ...pairs.slice(0, first)].join(" ")}`;
}

test("the nearest point of a contour is found on its edges", () => {
  const [loop] = trace(drawn("....", ".##.", ".##.", "...."));
  assert.deepEqual({ ...nearest(loop.points, 2, 0), edge: 0 }, { edge: 0, x: 2, y: 1, distance: 1 });
  assert.equal(nearest(loop.points, 4, 5).distance, Math.hypot(1, 2));
  assert.equal(nearestLoop(trace(drawn("#..#", "#..#")), 2.9, 1)?.loop.points.includes(4), true);
  assert.equal(nearestLoop([], 0, 0), null);
});

test("holes are filled, and only they", () => {
  const filled = fillHoles(drawn("####.", "#..#.", "#.#..", "####.", "....#"));
  assert.ok(mask.equal(filled, drawn("####.", "####.", "###..", "####.", "....#")), "a gap at a corner is no way out");
});

test("the largest part stays", () => {
  assert.ok(mask.equal(largestPart(drawn("#.##", "..##", "#...")), drawn("..##", "..##", "....")));
  assert.equal(largestPart(mask.empty()).width, 0);
});

test("growing and shrinking move the boundary by a pixel, the image's edge counts as inside", () => {
  const dot = drawn("....", ".#..", "....");
  const cross = drawn(".#..", "###.", ".#..");
  assert.ok(mask.equal(grow(mask.trim(dot), 4, 3), cross));
  assert.ok(mask.equal(shrink(cross, 10, 10), drawn("....", ".#..", "....")));
  const full = drawn("##", "##");
  assert.ok(mask.equal(shrink(full, 2, 2), full));
  assert.ok(mask.equal(grow(full, 2, 2), full));
});

test("a brush sets the pixels within its radius, and always the one under it", () => {
  const dot = mask.trim(mask.capsule(5.5, 5.5, 5.5, 5.5, 3));
  assert.ok(mask.equal(dot, { ...drawn("###", "###", "###"), x: 4, y: 4 }));
  assert.equal(mask.area(mask.capsule(5.9, 5.9, 5.9, 5.9, 0.5)), 1);
  const stroke = mask.trim(mask.capsule(2.5, 2.5, 12.5, 2.5, 1));
  assert.deepEqual([stroke.x, stroke.y, stroke.width, stroke.height], [2, 2, 11, 1]);
});
