// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake_browser.js";

const { Saver } = await import("../../scripts/labelmelite/static/editor/saver.js");

const [SMALL, LARGE] = ["04", "13"].map((counts) => ({ size: /** @type {[number, number]} */ ([2, 2]), counts }));

/**
 * What is sent when somebody keeps their own state of an object.
 * @param {any} own
 * @param {any} present
 * @param {any} refused
 */
function kept(own, present, refused = { kind: "edit", category: "old" }) {
  /** @type {any[]} */
  const sent = [];
  const editor = /** @type {any} */ ({ scene: { item: () => own }, history: { forget() {} }, record: (/** @type {any} */ change) => sent.push(change) });
  new Saver(editor, /** @type {any} */ ({}), { dataset: 1, image: 1, reload() {} }).keepOwn({ object: "1", ...refused }, present);
  return sent.map(({ kind, category, categoryAfter }) => (kind === "rename" ? `rename ${category} ${categoryAfter}` : kind));
}

test("who keeps their own state sends its name as well as its mask", () => {
  const own = { category: "mine", mask: SMALL };
  assert.deepEqual(kept(own, { category: "theirs", mask: SMALL }), ["rename theirs mine"]);
  assert.deepEqual(kept(own, { category: "theirs", mask: LARGE }), ["edit", "rename theirs mine"]);
  assert.deepEqual(kept(own, { category: "mine", mask: LARGE }), ["edit"]);
  assert.deepEqual(kept(own, { category: "mine", mask: SMALL }), []);
});

test("an object that was deleted meanwhile comes back, under the name that it got here", () => {
  const own = { category: "mine", mask: SMALL };
  assert.deepEqual(kept(own, null), ["restore"]);
  assert.deepEqual(kept(own, null, { kind: "rename", category: "old" }), ["restore", "rename old mine"]);
  assert.deepEqual(kept(undefined, { category: "theirs", mask: SMALL }), ["delete"]);
});
