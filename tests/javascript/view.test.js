import assert from "node:assert/strict";
import { test } from "node:test";

import { Scene } from "../../scripts/labelmelite/static/editor/scene.js";
import { View } from "../../scripts/labelmelite/static/editor/view.js";
import { equal } from "../../scripts/labelmelite/static/geometry/mask.js";
import { fill } from "../../scripts/labelmelite/static/geometry/fill.js";
import { generator } from "./random.js";

function view() {
  const one = new View();
  one.resize(800, 600);
  one.setImage(1600, 900);
  return one;
}

/** @param {number} actual @param {number} expected */
const near = (actual, expected) => assert.ok(Math.abs(actual - expected) < 1e-6, `${actual} is not ${expected}`);

test("an image is fitted and centred", () => {
  const one = view();
  near(one.zoom, 0.5);
  assert.deepEqual(one.toImage(400, 300), [800, 450]);
  assert.deepEqual(one.boxToScreen({ x: 0, y: 0, width: 1600, height: 900 }), { x: 0, y: 75, width: 800, height: 450 });
});

test("zooming keeps the place under the pointer, within limits", () => {
  const one = view();
  const [x, y] = one.toImage(300, 320);
  one.zoomAt(3, 300, 320);
  const [sx, sy] = one.toScreen(x, y);
  near(sx, 300);
  near(sy, 320);
  one.zoomAt(1e9);
  near(one.zoom, one.mostZoom);
  one.zoomAt(1e-9);
  near(one.zoom, 0.75 * one.fitZoom);
});

test("however it is moved, the middle of the screen stays over the image", () => {
  const random = generator(3);
  const one = view();
  for (let round = 0; round < 500; round++) {
    if (random() < 0.5) one.pan((random() - 0.5) * 3000, (random() - 0.5) * 3000);
    else one.zoomAt(0.3 + 2 * random(), random() * 800, random() * 600);
    const [x, y] = one.toImage(400, 300);
    assert.ok(x >= -1e-6 && x <= 1600 + 1e-6 && y >= -1e-6 && y <= 900 + 1e-6);
  }
});

test("a fitted image stays fitted in another window, another view keeps its middle", () => {
  const one = view();
  one.resize(400, 300);
  near(one.zoom, 0.25);
  one.zoomAt(4);
  const before = one.toImage(200, 150);
  one.resize(1000, 500);
  const after = one.toImage(500, 250);
  near(before[0], after[0]);
  near(before[1], after[1]);
});

test("an object is centred at twice its size, small ones not larger than eight screen pixels a pixel", () => {
  const one = view();
  one.focus({ x: 700, y: 400, width: 200, height: 100 });
  near(one.zoom, 2);
  assert.deepEqual(one.toImage(400, 300), [800, 450]);
  one.focus({ x: 700, y: 400, width: 4, height: 4 });
  near(one.zoom, 8);
});

/** @param {number} x @param {number} y @param {number} side */
const square = (x, y, side) => fill([x, y, x + side, y, x + side, y + side, x, y + side]);

function scene() {
  const one = new Scene(100, 80);
  for (const [id, x, y, side] of /** @type {const} */ ([["large", 10, 10, 50], ["small", 30, 30, 10], ["far", 85, 60, 10]])) {
    one.add({ id, category: id, mask: one.encode(square(x, y, side)) });
  }
  return one;
}

test("a click finds the smallest object, a place outside the nearest contour", () => {
  const one = scene();
  assert.equal(one.at(32, 32)?.id, "small");
  assert.equal(one.at(12.5, 12.5)?.id, "large");
  assert.equal(one.at(5, 5), undefined);
  assert.equal(one.nearest(5, 5)?.id, "large");
  assert.equal(one.nearest(84, 61)?.id, "far");
  assert.equal(one.nearest(41, 35)?.id, "small");
});

test("another mask changes contours, area and order, and tells what changed", () => {
  const one = scene();
  const item = /** @type {import("../../scripts/labelmelite/static/editor/scene.js").Item} */ (one.item("small"));
  assert.deepEqual(one.setMask(item, square(30, 30, 50)), { x: 30, y: 30, width: 50, height: 50 });
  assert.equal(item.area, 2500);
  assert.ok(equal(fill(...item.loops.map((loop) => loop.points)), item.bitmap));
  assert.equal(one.at(32, 32)?.id, "large");
  assert.equal(one.setMask(item, item.bitmap).width, 0);
});

test("the list is walked in a circle, and forgets what is removed", () => {
  const one = scene();
  one.selected = one.neighbour(1);
  assert.equal(one.selected, "large");
  one.selected = one.neighbour(-1);
  assert.equal(one.selected, "far");
  one.remove("far");
  assert.equal(one.selected, null);
  assert.equal(one.order.length, 2);
});
