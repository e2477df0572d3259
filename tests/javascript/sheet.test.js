// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { Sheet } from "../../scripts/labelmelite/static/questions/sheet.js";

/** @returns {any} */
function taskOf(count = 4, changes = {}) {
  const items = Array.from({ length: count }, (_, place) => ({ id: `i${place}`, alt: "", answer: null }));
  return { id: "t", kind: "questions", layout: "filmstrip", default: "none", third: true, advance: true, items, ...changes };
}

/** A clock that is set by hand, in milliseconds. */
function handClock() {
  const clock = Object.assign(() => clock.now, { now: 0 });
  return clock;
}

test("without a default every item needs an answer of its own", () => {
  const sheet = new Sheet(taskOf(2));
  sheet.go(1);
  assert.equal(sheet.left, 2);
  sheet.answer(0, "yes");
  assert.equal(sheet.complete, false);
  sheet.answer(1, "no", "partial");
  assert.equal(sheet.complete, true);
  assert.deepEqual(sheet.given[1], { reply: "no", reason: "partial", default_used: false });
});

test("a default answers what was looked at, says so, and nothing else", () => {
  const sheet = new Sheet(taskOf(3, { default: "no" }));
  assert.deepEqual(sheet.given[0], { reply: "no", reason: null, default_used: true });
  assert.equal(sheet.left, 2);
  assert.equal(sheet.go(1), true);
  assert.equal(sheet.go(1), false);
  assert.equal(sheet.left, 1);
});

test("saying what the default says is an answer of its own", () => {
  const sheet = new Sheet(taskOf(1, { default: "no" }));
  assert.equal(sheet.answer(0, "no"), true);
  assert.equal(sheet.given[0]?.default_used, false);
  assert.equal(sheet.answer(0, "no"), false);
});

test("toggling goes from yes to no, and from everything else to yes", () => {
  const sheet = new Sheet(taskOf(1));
  sheet.toggle(0);
  assert.equal(sheet.given[0]?.reply, "yes");
  sheet.toggle(0);
  assert.equal(sheet.given[0]?.reply, "no");
  sheet.answer(0, "other");
  assert.equal(sheet.given[0]?.reason, "not_part_of_cluster");
  sheet.toggle(0);
  assert.equal(sheet.given[0]?.reply, "yes");
});

test("an audit has no third answer", () => {
  const sheet = new Sheet(taskOf(1, { third: false }));
  assert.equal(sheet.answer(0, "other"), false);
  assert.equal(sheet.given[0], null);
});

test("time goes to the item in sight, and none passes while the tab is hidden", () => {
  const clock = handClock();
  const sheet = new Sheet(taskOf(2), clock);
  clock.now = 1500;
  sheet.go(1);
  clock.now = 2000;
  sheet.count(false);
  clock.now = 60000;
  sheet.count(true);
  clock.now = 60250;
  sheet.answer(1, "yes");
  assert.deepEqual(sheet.seconds, [1.5, 0.75]);
  assert.equal(sheet.record(1, "grid").seconds, 0.75);
  assert.equal(sheet.record(1, "grid").layout, "grid");
});

test("answers that were saved before a reload are there again, and the first open item is in sight", () => {
  const task = taskOf(3);
  task.items[0].answer = { reply: "yes", reason: null, default_used: false };
  const sheet = new Sheet(task);
  assert.equal(sheet.now, 1);
  assert.equal(sheet.left, 2);
  assert.equal(sheet.nextOpen(2), 2);
  sheet.answer(2, "no");
  assert.equal(sheet.nextOpen(2), 1);
  sheet.answer(1, "no");
  assert.equal(sheet.nextOpen(0), -1);
});
