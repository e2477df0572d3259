// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { View, contains } from "../../scripts/labelmelite/static/questions/scatter.js";

const square = [{ x: 0, y: 0 }, { x: 10, y: 0 }, { x: 10, y: 10 }, { x: 0, y: 10 }];

test("a closed line holds what is inside, by the even-odd rule", () => {
  assert.equal(contains(square, { x: 5, y: 5 }), true);
  assert.equal(contains(square, { x: 15, y: 5 }), false);
  // A line that goes round twice holds nothing where it does.
  assert.equal(contains([...square, ...square], { x: 5, y: 5 }), false);
});

test("fitting shows every point inside the margin, and one point alone", () => {
  const view = new View([-3, 5, 1], [2, 2, 9]);
  view.fit(400, 300, 20);
  for (const place of [0, 1, 2]) {
    const { x, y } = view.at(place);
    assert.ok(x >= 20 - 1e-6 && x <= 380 + 1e-6 && y >= 20 - 1e-6 && y <= 280 + 1e-6);
  }
  const alone = new View([7], [7]);
  alone.fit(100, 100);
  assert.deepEqual([Math.round(alone.at(0).x), Math.round(alone.at(0).y)], [50, 50]);
  new View([], []).fit(100, 100);
});

test("what is under the cursor stays there while zooming", () => {
  const view = new View([0, 4], [0, 4]);
  view.fit(200, 200);
  const before = view.at(1);
  view.zoom(before, 3);
  const after = view.at(1);
  assert.ok(Math.abs(after.x - before.x) < 1e-6 && Math.abs(after.y - before.y) < 1e-6);
});

test("a lasso and the cursor find points where they stand on screen, also after a move", () => {
  const view = new View([0, 1, 2], [0, 0, 0]);
  view.fit(300, 100);
  view.move(10, -5);
  const { x, y } = view.at(1);
  assert.equal(view.nearest({ x: x + 2, y }, 5), 1);
  assert.equal(view.nearest({ x: x + 20, y: y + 20 }, 5), -1);
  const round = [{ x: x - 4, y: y - 4 }, { x: x + 4, y: y - 4 }, { x: x + 4, y: y + 4 }, { x: x - 4, y: y + 4 }];
  assert.deepEqual(view.inside(round), [1]);
  assert.deepEqual(view.inside(round.slice(0, 2)), []);
});
