// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { answerWith, closePage, intervals, kept, leave, main, press, sent, sleep, toasts } from "./fake_browser.js";

const PAGE = "../../scripts/labelmelite/static/pages/questions.js";
const SESSION = { annotator: { id: "a", name: "", role: "annotator" }, csrf: "c", adapter: "lab", preview: false, asks: true, loop: {}, keys: {} };
const ITEM = { alt: "x", width: 9, height: 9, box: [0, 0, 1, 1], mask: { size: [1, 1], counts: "1" }, crop: { x: 0, y: 0, side: 1 }, crop_url: "/c", image_url: "/i", answer: null };
const TASK = {
  kind: "questions", layout: "filmstrip", default: "none", third: true, advance: true, category: { name: "k" }, text: "", rule: "",
  examples: { yes: [], no: [] }, items: [1, 2, 3].map((number) => ({ ...ITEM, id: `i${number}` })),
};
let loads = 0;

beforeEach(() => {
  closePage();
  kept.clear();
  intervals.clear();
  main.children = [];
  toasts.children = [];
});

/** Load the page, with a server that has so many tasks and may say that one is over. @param {{tasks?: number, gone?: boolean, id?: string}} options */
async function load({ tasks = 1, gone = false, id = "t" } = {}) {
  let given = 0;
  answerWith(({ path, body }) => {
    if (path === "/api/session") return [200, SESSION];
    if (path === "/api/tasks") {
      given += 1;
      const task = { ...structuredClone(TASK), id: `${id}${given}` };
      return [200, given <= tasks ? { task } : { task: null, message: "Nothing is open now.", complete: true }];
    }
    if (path.endsWith("/submit")) return [200, { accepted: true, message: "Thank you.", completion: null }];
    const list = body?.answers ?? body?.events ?? [];
    const over = gone && path.startsWith(`/api/tasks/${id}1`);
    return [200, { acks: list.map((/** @type {any} */ { client_no }) => (over ? { client_no, error: { code: "gone", message: "It is over." } } : { client_no, seq: 1 })) }];
  });
  loads += 1;
  await import(`${PAGE}?${loads}`);
  await sleep(20);
}

/** @param {string} end */
const paths = (end) => sent.filter(({ path }) => path.endsWith(end)).map(({ path }) => path);

test("a task that was submitted is answered by no key any more", async () => {
  await load({ id: "done" });
  for (let time = 0; time < 3; time += 1) press("y");
  await sleep(20);
  press("Enter", true);
  press("n");
  await sleep(100);
  assert.match(main.text, /All questions are answered/);
  const before = sent.length;
  for (const key of ["n", "ArrowLeft", " ", "g", "w"]) press(key);
  press("Enter", true);
  await sleep(50);
  assert.equal(sent.length, before);
  assert.deepEqual(sent.flatMap(({ body }) => body?.answers ?? []).map(({ item, reply }) => `${item} ${reply}`), ["i1 yes", "i2 yes", "i3 yes"]);
  assert.equal(intervals.size, 0);
});

test("a task that is over is told once, and followed by one other", async () => {
  await load({ tasks: 2, gone: true, id: "over" });
  for (let time = 0; time < 3; time += 1) press("y");
  await sleep(100);
  assert.equal(paths("/api/tasks").length, 2);
  assert.deepEqual(toasts.children.map((one) => one.textContent), ["It is over."]);
  assert.equal(intervals.size, 1);
  press("n");
  await sleep(20);
  assert.deepEqual(paths("over2/answers").length, 1);
});

test("what an earlier page left is there before a task is asked for", async () => {
  leave("old", 1);
  await load();
  const order = sent.map(({ path }) => path).filter((path) => ["/api/events", "/api/tasks"].includes(path));
  assert.deepEqual(order, ["/api/events", "/api/tasks"]);
});

test("a platform's link that is refused shows a page that says so", async () => {
  Object.assign(window.location, { pathname: "/study", search: "?token=x" });
  answerWith(() => [410, { error: { code: "gone", message: "This link has ended. Ask for a new one." } }]);
  loads += 1;
  await import(`${PAGE}?${loads}`);
  assert.match(main.text, /This link has ended/);
});
