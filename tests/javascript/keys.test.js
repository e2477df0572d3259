// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { ACTIONS, PRESETS, nameOf, refusal } from "../../scripts/labelmelite/static/keys.js";

/** @param {object} press @returns {any} */
const pressed = (press) => ({ ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...press });

test("a press is written as people read it", () => {
  assert.equal(nameOf(pressed({ key: "n" })), "N");
  assert.equal(nameOf(pressed({ key: " " })), "Space");
  assert.equal(nameOf(pressed({ key: "Z", ctrlKey: true, shiftKey: true })), "Ctrl+Shift+Z");
  assert.equal(nameOf(pressed({ key: "z", metaKey: true })), "Ctrl+Z");
  assert.equal(nameOf(pressed({ key: "?", shiftKey: true })), "?");
  assert.equal(nameOf(pressed({ key: "PageDown" })), "PageDown");
});

test("no action has a key of the browser's, and no key has two actions on a page", () => {
  /** @type {Record<string, Record<string, string[]>>} */
  const sets = { ...PRESETS };
  for (const [name, own] of Object.entries(sets)) {
    for (const questions of [true, false]) {
      /** @type {Map<string, string>} */
      const taken = new Map();
      for (const [action, { group, keys }] of Object.entries(ACTIONS)) {
        const here = group === "Everywhere" || (group === "Questions") === questions;
        for (const key of here ? (own[action] ?? keys) : []) {
          assert.equal(refusal(key), "", `${action}: ${key}`);
          assert.equal(taken.get(key), undefined, `${name}: ${key} means ${taken.get(key)} and ${action}`);
          taken.set(key, action);
        }
      }
    }
  }
});

test("keys of the browser and modifiers alone are refused with a reason", () => {
  assert.match(refusal("Ctrl+W"), /belongs to the browser/);
  assert.match(refusal("Shift"), /modifier/);
});
