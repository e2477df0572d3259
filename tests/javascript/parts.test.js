// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { Scene } from "../../scripts/labelmelite/static/editor/scene.js";
import { area, blank, toRle } from "../../scripts/labelmelite/static/geometry/mask.js";
import { largestPart } from "../../scripts/labelmelite/static/geometry/morphology.js";

test("a mask of a quarter of a million parts is one like others", () => {
  const side = 700;
  const board = blank({ x: 0, y: 0, width: side, height: side });
  board.data.forEach((_, place) => { board.data[place] = (place + Math.floor(place / side)) % 2; });
  const alone = largestPart(board);
  assert.deepEqual([alone.x, alone.y, area(alone)], [1, 0, 1]);
  const scene = new Scene(side, side);
  const item = scene.add({ id: "1", category: "c", mask: toRle(board, side, side) });
  assert.equal(scene.distance(item, -3, 0), Math.hypot(3, 1));
});

test("the largest part is the first of the largest, and of nothing there is none", () => {
  const row = { x: 2, y: 3, width: 8, height: 1, data: Uint8Array.from([1, 0, 1, 1, 0, 1, 1, 0]) };
  const found = largestPart(row);
  assert.deepEqual([found.x, found.width], [4, 2]);
  assert.equal(largestPart({ x: 0, y: 0, width: 0, height: 0, data: new Uint8Array(0) }).width, 0);
});
