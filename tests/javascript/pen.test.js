import assert from "node:assert/strict";
import { test } from "node:test";

import { Pen } from "../../scripts/labelmelite/static/editor/pen.js";
import { View } from "../../scripts/labelmelite/static/editor/view.js";
import { generator } from "./random.js";

const [WIDTH, HEIGHT] = [200, 100];

/** What a path holds in the window: pixels that its lines touch. @param {number[][]} path */
function touched(path) {
  const seen = new Set();
  for (let place = 1; place < path.length; place++) {
    const [[x0, y0], [x1, y1]] = [path[place - 1], path[place]];
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)));
    for (let step = 0; step <= steps; step++) {
      const x = Math.floor(x0 + ((x1 - x0) * step) / steps);
      const y = Math.floor(y0 + ((y1 - y0) * step) / steps);
      if (x >= 0 && x < WIDTH && y >= 0 && y < HEIGHT) seen.add(y * WIDTH + x);
    }
  }
  return seen;
}

/** @param {number[]} points @param {number} zoom */
function drawn(points, zoom) {
  /** @type {number[][]} */
  const path = [];
  const context = { moveTo: (/** @type {number[]} */ ...at) => path.push(at), lineTo: (/** @type {number[]} */ ...at) => path.push(at) };
  const view = new View();
  view.setImage(100, 100);
  view.resize(WIDTH, HEIGHT);
  view.centre(50, 50, zoom);
  const pen = new Pen(/** @type {any} */ (context), view);
  pen.path(points, 2);
  const all = [];
  for (let place = 0; place < points.length; place += 2) all.push(view.toScreen(points[place], points[place + 1]));
  return { path, all };
}

test("lines beyond the window are left out, and no line in it moves", () => {
  const random = generator(3);
  for (let round = 0; round < 200; round++) {
    const points = [50, 50];
    // Steps along rows and columns, as a contour has them; the walk leaves the window and comes back.
    for (let step = 0; step < 400; step++) {
      const [x, y] = points.slice(-2);
      const far = Math.floor(random() * 9) - 4;
      points.push(...(step % 2 ? [x + far, y] : [x, y + far]));
    }
    const { path, all } = drawn(points, 8);
    assert.ok(path.length <= all.length);
    assert.deepEqual(touched(path), touched(all));
  }
});

test("of a contour of which little is in sight little is drawn", () => {
  const points = [];
  for (let step = 0; step < 4000; step++) points.push(100 + 60 * Math.cos(step / 637), 50 + 60 * Math.sin(step / 637));
  const { path, all } = drawn(points, 8);
  assert.ok(path.length < all.length / 4, `${path.length} of ${all.length}`);
});
