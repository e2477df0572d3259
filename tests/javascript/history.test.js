import assert from "node:assert/strict";
import { test } from "node:test";

import { History, replay } from "../../scripts/labelmelite/static/geometry/history.js";
import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import { generator, randomMask } from "./random.js";

const [WIDTH, HEIGHT] = [14, 11];

/** What the server does: objects by id, and a log. */
class Log {
  constructor() {
    /** @type {Map<string, {mask: any, category: string}>} */
    this.objects = new Map();
    /** Names stay known while an object is deleted. @type {Map<string, string>} */
    this.names = new Map();
    /** @type {any[]} */
    this.events = [];
  }

  /** @param {any} change @param {any} [reference] */
  apply(change, reference = {}) {
    const { object, kind, before, after } = change;
    const present = this.objects.get(object);
    if (kind === "create" || kind === "restore") assert.equal(present, undefined);
    else if (kind === "rename") assert.equal(present?.category, change.category);
    else assert.deepEqual(present?.mask, before);
    if (present) this.names.set(object, present.category);
    const named = kind === "create" || kind === "rename";
    const category = named ? change.categoryAfter : this.names.get(object);
    if (kind === "delete") this.objects.delete(object);
    else this.objects.set(object, { mask: after ?? present?.mask, category });
    change.seq = this.events.length + 1;
    const payload = kind === "rename" ? { before: change.category, after: change.categoryAfter } : { before, after, category: change.category };
    this.events.push({ seq: change.seq, object, kind, payload, annotator: "me", ...reference });
  }

  get state() {
    return JSON.stringify([...this.objects].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

/** @param {() => number} random @param {Log} log */
function randomChange(random, log) {
  const rle = () => mask.toRle(randomMask(random, WIDTH, HEIGHT), HEIGHT, WIDTH);
  const ids = [...log.objects.keys()];
  const object = ids[Math.floor(random() * ids.length)];
  const present = object ? log.objects.get(object) : undefined;
  const base = { seq: null, clientNo: null };
  if (!present || random() < 0.25) {
    return { ...base, object: `new ${log.events.length}`, kind: /** @type {const} */ ("create"), before: null, after: rle(), category: "cat", categoryAfter: "cat" };
  }
  const same = { ...base, object, category: present.category, categoryAfter: present.category };
  if (random() < 0.2) return { ...same, kind: /** @type {const} */ ("delete"), before: present.mask, after: null };
  if (random() < 0.2) return { ...same, kind: /** @type {const} */ ("rename"), before: null, after: null, categoryAfter: `c${log.events.length}` };
  return { ...same, kind: /** @type {const} */ ("edit"), before: present.mask, after: rle() };
}

/** @param {Log} log @param {History} history @param {"undo" | "redo"} way */
function step(log, history, way) {
  const result = way === "undo" ? history.undo() : history.redo();
  if (!result) return false;
  log.apply(result.change, "undoes" in result ? { undoes: result.undoes.seq } : { redoes: result.redoes.seq });
  return true;
}

test("undo after any sequence gives every bit of the start back, redo every bit of the end", () => {
  const random = generator(31);
  for (let round = 0; round < 150; round++) {
    const log = new Log();
    const history = new History();
    log.objects.set("old", { mask: mask.toRle(randomMask(random, WIDTH, HEIGHT), HEIGHT, WIDTH), category: "dog" });
    const start = log.state;
    for (let count = 0; count < 25; count++) {
      const dice = random();
      if (dice < 0.25) step(log, history, "undo");
      else if (dice < 0.4) step(log, history, "redo");
      else {
        const change = randomChange(random, log);
        log.apply(change);
        history.push(change);
      }
    }
    while (step(log, history, "redo"));
    const end = log.state;
    while (step(log, history, "undo"));
    assert.equal(log.state, start);
    while (step(log, history, "redo"));
    assert.equal(log.state, end);
  }
});

test("the list made again from the events undoes and redoes as the one before the reload", () => {
  const random = generator(32);
  for (let round = 0; round < 150; round++) {
    const log = new Log();
    let history = new History();
    log.objects.set("old", { mask: mask.toRle(randomMask(random, WIDTH, HEIGHT), HEIGHT, WIDTH), category: "dog" });
    const start = log.state;
    for (let count = 0; count < 25; count++) {
      const dice = random();
      if (dice < 0.3) step(log, history, "undo");
      else if (dice < 0.45) step(log, history, "redo");
      else if (dice < 0.6) {
        const categories = new Map([...log.objects].map(([id, { category }]) => [id, category]));
        const again = replay(log.events, categories, () => true);
        /** @param {any} change */
        const essence = ({ object, kind, before, after, seq }) => ({ object, kind, before, after, seq });
        assert.deepEqual(again.done.map(essence), history.done.map(essence));
        assert.deepEqual(again.undone.map((one) => one.seq), history.undone.map((one) => one.seq));
        history = again;
      } else {
        const change = randomChange(random, log);
        log.apply(change);
        history.push(change);
      }
    }
    while (step(log, history, "undo"));
    assert.equal(log.state, start);
  }
});

test("somebody else's change ends what can be undone of that object alone", () => {
  const events = [
    { seq: 1, object: "a", kind: /** @type {const} */ ("edit"), payload: { before: 1, after: 2 }, annotator: "me" },
    { seq: 2, object: "b", kind: /** @type {const} */ ("edit"), payload: { before: 1, after: 2 }, annotator: "me" },
    { seq: 3, object: "a", kind: /** @type {const} */ ("edit"), payload: { before: 2, after: 3 }, annotator: "you" },
    { seq: 4, object: "a", kind: /** @type {const} */ ("edit"), payload: { before: 3, after: 4 }, annotator: "me" },
  ];
  const history = replay(events, new Map(), (event) => event.annotator === "me");
  assert.deepEqual(history.done.map((change) => change.seq), [2, 4]);
});

test("nothing is undone where nothing was done", () => {
  const history = new History();
  assert.equal(history.undo(), null);
  assert.equal(history.redo(), null);
});
