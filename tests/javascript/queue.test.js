// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { answerWith, kept, leave, sent, sleep } from "./fake_browser.js";

const { Outbox } = await import("../../scripts/labelmelite/static/net/queue.js");
const { getSession, request } = await import("../../scripts/labelmelite/static/net/api.js");

const ADA = { annotator: { id: "ada", name: "", role: "annotator" }, csrf: "first" };
const STALE = [409, { error: { code: "stale", message: "Reload this page." } }];

/** @param {any} body */
const acks = (body) => [200, { acks: body.events.map((/** @type {any} */ { client_no }) => ({ client_no, seq: client_no })) }];

/** Numbers of the records of each request. */
const numbers = () => sent.filter(({ path }) => path === "/api/events").map(({ body }) => body.events.map((/** @type {any} */ one) => one.client_no));

beforeEach(() => kept.clear());

/** @param {number} count */
async function outbox(count, size = 1) {
  /** @type {string[]} */
  const refused = [];
  const one = new Outbox("ada", () => {}, (number, message) => refused.push(`${number}: ${message}`));
  await one.leftBehind;
  const results = Array.from({ length: count }, () => one.push("/api/events", "events", { mask: "x".repeat(size) }).acknowledged);
  return { one, refused, results };
}

test("a session that began anew is taken over if it is the same person's, and nothing is lost", async () => {
  answerWith(() => [200, ADA]);
  await getSession();
  answerWith(({ path, body }) => {
    if (path === "/api/session") return [200, { ...ADA, csrf: "second" }];
    return sent.filter((one) => one.path === "/api/events").length === 1 ? STALE : acks(body);
  });
  const { one, results } = await outbox(5);
  assert.deepEqual((await Promise.all(results)).map(({ seq }) => seq), [1, 2, 3, 4, 5]);
  await one.flush();
  assert.equal(kept.size, 0);
  assert.equal((await getSession()).csrf, "second");
});

test("what one person did is kept, and not sent, while somebody else is signed in", async () => {
  let who = "ben";
  answerWith(({ path, body }) => {
    if (path === "/api/session") return [200, { ...ADA, annotator: { ...ADA.annotator, id: who } }];
    return who === "ben" ? STALE : acks(body);
  });
  const { one, results } = await outbox(3);
  await sleep(30);
  assert.equal(one.waiting.length, 3);
  assert.equal(kept.size, 3);
  assert.equal((await getSession()).annotator.id, "ada");
  await assert.rejects(() => request("POST", "/api/events", {}), /Somebody else has signed in/);
  who = "ada";
  await one.flush();
  assert.equal((await Promise.all(results)).length, 3);
});

test("what earlier pages left is refused aloud", async () => {
  leave("old", 1);
  leave("old", 2);
  answerWith(({ body }) => [200, { acks: body.events.map((/** @type {any} */ { client_no }) => ({ client_no, error: { code: "conflict", message: "It was changed." } })) }]);
  const { one, refused } = await outbox(0);
  assert.deepEqual(refused, ["2: It was changed."]);
  assert.equal(one.waiting.length, 0);
  assert.equal(kept.size, 0);
});

test("what earlier pages left keeps its order, waits as a whole, and is tried again on this page", async () => {
  for (let number = 1; number <= 60; number += 1) leave("old", number);
  let full = true;
  answerWith(({ body }) => (full ? [507, { error: { code: "storage", message: "The disk is full." } }] : acks(body)));
  const { one, results } = await outbox(1);
  assert.ok(numbers().every(([first]) => first === 1));
  assert.equal(one.waiting.length, 61);
  full = false;
  await sleep(800);
  assert.equal((await results[0]).seq, 1);
  await one.flush();
  assert.deepEqual(numbers().slice(-3).map((some) => [some[0], some.at(-1)]), [[1, 50], [51, 60], [1, 1]]);
  assert.equal(kept.size, 0);
});

test("a request that is too large is halved, and a single record alone refused", async () => {
  for (const refusal of [{ error: { code: "too_large", message: "Too large." } }, "<html>413 Request Entity Too Large</html>"]) {
    answerWith(({ body }) => (body.events.some((/** @type {any} */ { client_no }) => client_no === 7) ? [413, refusal] : acks(body)));
    const { one, results } = await outbox(50);
    const found = await Promise.all(results);
    assert.deepEqual(found.flatMap(({ error, client_no }) => (error ? [[client_no, error.code]] : [])), [[7, "too_large"]]);
    await one.flush();
    assert.equal(kept.size, 0);
  }
});

test("requests are bounded by their bytes too", async () => {
  answerWith(({ body }) => acks(body));
  const { results } = await outbox(5, 400_000);
  await Promise.all(results);
  assert.deepEqual(numbers(), [[1, 2], [3, 4], [5]]);
});

test("who waits for everything to be saved waits no longer than said, though a request hangs", async () => {
  answerWith(() => new Promise(() => {}));
  const { one } = await outbox(1);
  const begin = performance.now();
  assert.equal(await one.settled(100), false);
  assert.ok(performance.now() - begin < 1000);
});

test("a request that hangs is given up after a while, but an upload may take its time", async () => {
  /** @type {(AbortSignal | undefined)[]} */
  const signals = [];
  answerWith(({ signal }) => [200, signals.push(signal)]);
  await request("POST", "/api/events", {});
  await request("GET", "/api/datasets");
  await request("POST", "/api/datasets", new FormData());
  assert.deepEqual(signals.map((one) => one instanceof AbortSignal), [true, true, false]);
});
