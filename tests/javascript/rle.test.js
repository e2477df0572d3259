import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { fromBox, fromPolygons } from "../../scripts/labelmelite/static/geometry/polygons.js";
import * as rle from "../../scripts/labelmelite/static/geometry/rle.js";
import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import { generator, randomMask } from "./random.js";

const fixtures = JSON.parse(readFileSync(new URL("fixtures/coco.json", import.meta.url), "utf8"));

for (const { name, pixels, height, width, counts, area, box } of fixtures.masks) {
  test(`pycocotools and we agree on ${name}`, () => {
    const encoded = { size: [height, width], counts };
    assert.deepEqual(rle.encode(pixels, height, width), encoded);
    assert.deepEqual(Array.from(rle.decode(encoded)), pixels);
    assert.equal(rle.area(encoded), area);
    assert.deepEqual(rle.box(encoded), box);
    assert.deepEqual(mask.toRle(mask.fromRle(encoded), height, width), encoded);
    assert.deepEqual(rle.check(encoded), encoded);
  });
}

test("polygons and boxes become the masks of pycocotools", () => {
  for (const { polygons, height, width, counts } of fixtures.polygons) {
    assert.equal(fromPolygons(polygons, height, width).counts, counts, JSON.stringify(polygons));
  }
  for (const { box, height, width, counts } of fixtures.boxes) {
    assert.equal(fromBox(box, height, width).counts, counts, JSON.stringify(box));
  }
});

test("IoU, union and intersection are those of pycocotools", () => {
  for (const { a, b, iou, crowd, union, intersection } of fixtures.pairs) {
    assert.equal(rle.iou(a, b), iou);
    assert.equal(rle.iou(a, b, true), crowd);
    assert.equal(rle.merge([a, b]).counts, union);
    assert.equal(rle.merge([a, b], true).counts, intersection);
  }
});

test("numbers beyond 31 bits keep their value in text", () => {
  for (const run of [2 ** 31 - 1, 2 ** 31, 2 ** 31 + 7, 2 ** 32, 2 ** 33 + 12345]) {
    const runs = [run, 5, run - 3, 1, run + 7];
    assert.deepEqual(rle.parseCounts(rle.formatCounts(runs)), runs);
  }
});

test("a mask comes back from its run lengths", () => {
  const random = generator(1);
  for (let round = 0; round < 2000; round++) {
    const [width, height] = [1 + Math.floor(random() * 20), 1 + Math.floor(random() * 20)];
    const bitmap = randomMask(random, width, height);
    const encoded = rle.encode(bitmap.data, height, width);
    assert.deepEqual(rle.decode(encoded), bitmap.data);
    assert.deepEqual(mask.toRle(bitmap, height, width), encoded);
    assert.deepEqual(mask.toRle(mask.fromRle(encoded), height, width), encoded);
  }
});

test("runs that empty ones divide are joined", () => {
  assert.deepEqual(rle.check({ size: [2, 3], counts: [1, 1, 0, 2, 2, 0, 0] }), rle.check({ size: [2, 3], counts: [1, 3, 2] }));
  assert.deepEqual(rle.check({ size: [1, 3], counts: [0, 0, 1, 2] }), rle.check({ size: [1, 3], counts: [1, 2] }));
});

const refused = [
  [null, "is no run-length mask"],
  [{ size: [2, 2] }, "needs size and counts"],
  [{ size: [2], counts: [4] }, "has no size"],
  [{ size: [0, 2], counts: [] }, "positive whole numbers"],
  [{ size: [2 ** 20, 2 ** 20], counts: [2 ** 40] }, "more than"],
  [{ size: [2, 2], counts: [3] }, "sum to 3, its size is 2 x 2 = 4 pixels"],
  [{ size: [2, 2], counts: [5, -1] }, "negative run"],
  [{ size: [2, 2], counts: [1.5, 2.5] }, "whole numbers of pixels"],
  [{ size: [2, 2], counts: ["4"] }, "whole numbers of pixels"],
  [{ size: [2, 2], counts: 4 }, "counts of type number"],
  [{ size: [2, 2], counts: "4 " }, "outside the RLE alphabet"],
  [{ size: [2, 2], counts: "ä" }, "outside the RLE alphabet"],
  [{ size: [2, 2], counts: "d" }, "end in the middle of a number"],
  [{ size: [2, 2], counts: "PPPPPPPP0" }, "more than seven groups"],
];

for (const [value, message] of refused) {
  test(`refused: ${message}`, () => {
    assert.throws(() => rle.check(value), (error) => error instanceof rle.MaskError && error.message.includes(message));
  });
}

test("a mask of another size is refused, and told when height and width are swapped", () => {
  const value = { size: [2, 3], counts: [6] };
  assert.throws(() => rle.check(value, [3, 2]), /height and width are swapped/);
  assert.throws(() => rle.check(value, [5, 5]), /has size 2 x 3, the image has 5 x 5$/);
});

test("polygons that cannot be drawn are refused", () => {
  assert.throws(() => fromPolygons([], 5, 5), /no polygon/);
  assert.throws(() => fromPolygons([[1, 1, 2, 2]], 5, 5), /part 0\) of fewer than three points/);
  assert.throws(() => fromPolygons([[1, 1, 2, 2, 3, 3, 4]], 5, 5), /odd number/);
  assert.throws(() => fromPolygons([[1, 1, 2, 2, NaN, 3]], 5, 5), /coordinate NaN/);
});
