// @ts-check
/** Yes/No questions (thesis, section 4.4.2): task after task until the policy has no more. */

import { ApiError, request } from "../net/api.js";
import { recall, remember } from "../net/storage.js";
import { words } from "../questions/cell.js";
import { showExamples } from "../questions/examples.js";
import { Filmstrip, Grid } from "../questions/layouts.js";
import { Sheet } from "../questions/sheet.js";
import { showWhole } from "../questions/whole.js";
import { announce, element, showProblem, start, toast } from "./frame.js";
import { finishAtPlatform, signInFromAddress } from "./crowd.js";

/** @typedef {import("../questions/sheet.js").Task} Task */
/** @typedef {import("../questions/sheet.js").Reply} Reply */
/** @typedef {import("../questions/sheet.js").Reason} Reason */
/** @typedef {import("./frame.js").Frame} Frame */

const LAYOUT = "labelmelite.layout";
const RENEW_EVERY = 60000;
/** @type {Record<string, Reason>} */
const REASON_OF = {
  "answer.wrong_class": "wrong_class",
  "answer.bad_boundary": "bad_boundary",
  "answer.two_objects": "two_objects",
  "answer.partial": "partial",
};

/** One task on the page. */
class Asking {
  /**
   * @param {Frame} frame
   * @param {Task} task
   * @param {() => void} onDone
   */
  constructor(frame, task, onDone) {
    this.frame = frame;
    this.task = task;
    this.onDone = onDone;
    this.sheet = new Sheet(task);
    this.stage = element("div", { class: "stage", role: "group", tabindex: "0", "aria-label": "Masks" });
    this.left = element("span", { class: "left" });
    this.submitButton = element("button", { class: "main", onclick: () => this.submit() });
    this.thirdButton = this.answerButton("answer.other", "– Not part of this cluster", () => this.answer("other"));
    this.thirdButton.dataset.reply = "other";
    this.thirdButton.hidden = !task.third;
    this.submitting = false;
    /** Whether the task is over; what comes late, by a key or from the server, changes nothing any more. */
    this.ended = false;
    this.build();
    this.layoutName = /** @type {"filmstrip" | "grid"} */ (recall(LAYOUT) ?? task.layout);
    this.layout = this.layOut();
    const { now } = this.sheet;
    if (this.sheet.given[now]?.default_used && !task.items[now].answer) this.save(now);
    this.show();
    this.visibility = () => this.sheet.count(!document.hidden);
    document.addEventListener("visibilitychange", this.visibility);
    this.renewing = window.setInterval(() => this.renew(), RENEW_EVERY);
    this.resized = () => this.show();
    window.addEventListener("resize", this.resized);
  }

  build() {
    const { task, frame } = this;
    const yes = this.answerButton("answer.yes", "✓ Yes", () => this.answer("yes"));
    const no = this.answerButton("answer.no", "✗ No", () => this.answer("no"));
    yes.dataset.reply = "yes";
    no.dataset.reply = "no";
    const reasons = element("span", { class: "answers", role: "group", "aria-label": "Why no" });
    for (const [action, label] of [["answer.wrong_class", "wrong class"], ["answer.bad_boundary", "bad boundary"], ["answer.two_objects", "two objects"], ["answer.partial", "partial"]]) {
      const button = this.answerButton(action, label, () => this.answer("no", REASON_OF[action]));
      button.dataset.reply = "no";
      reasons.append(button);
    }
    const examples = this.answerButton("question.examples", "Definition, examples", () => showExamples(task, frame.keys));
    const layout = this.answerButton("question.layout", "Filmstrip or grid", () => this.switchLayout());
    frame.keys.describe(this.submitButton, "submit");
    frame.main.replaceChildren(
      element("div", { class: "ask" }, element("h1", { text: task.text }), element("span", { class: "rule", text: task.rule }), element("span", { class: "push spread" }, examples, layout)),
      this.stage,
      element("div", { class: "bar" }, this.left, element("span", { class: "answers", role: "group", "aria-label": "Answer" }, yes, no, this.thirdButton), reasons, this.submitButton),
    );
  }

  /**
   * @param {string} action
   * @param {string} label
   * @param {() => void} onclick
   */
  answerButton(action, label, onclick) {
    const button = element("button", { text: label, onclick, type: "button" });
    this.frame.keys.describe(button, action);
    return button;
  }

  /** Whether answers can be given; none may arrive beside the submission. */
  get open() {
    return !this.ended && !this.submitting;
  }

  /** Let the keys of this page act on this task. */
  takeKeys() {
    const { keys } = this.frame;
    keys.on("answer.yes", () => this.answer("yes"));
    keys.on("answer.no", () => this.answer("no"));
    keys.on("answer.other", () => this.answer("other"));
    keys.on("answer.toggle", () => this.toggle(this.sheet.now));
    for (const [action, reason] of Object.entries(REASON_OF)) keys.on(action, () => this.answer("no", reason));
    keys.on("question.next", () => this.go(this.sheet.now + 1), { repeat: true });
    keys.on("question.previous", () => this.go(this.sheet.now - 1), { repeat: true });
    keys.on("question.below", () => this.go(this.layout.moved(1)), { repeat: true });
    keys.on("question.above", () => this.go(this.layout.moved(-1)), { repeat: true });
    keys.on("question.layout", () => this.switchLayout());
    keys.on("question.examples", () => showExamples(this.task, keys));
    keys.on("question.hide", () => this.cell()?.showMask(false), { up: () => this.cell()?.showMask(true) });
    /** @type {(() => void) | null} */
    let close = null;
    keys.on("question.whole", () => { close = showWhole(this.task.items[this.sheet.now]); }, { up: () => close?.() });
    for (let number = 1; number <= 9; number += 1) keys.on(`cell.${number}`, () => this.toggleInRow(number - 1));
    keys.on("submit", () => this.submit());
  }

  cell() {
    return this.layout.cells[this.sheet.now];
  }

  layOut() {
    const Kind = this.layoutName === "grid" ? Grid : Filmstrip;
    // In a grid everything is in sight, so that every default counts as seen.
    if (this.layoutName === "grid") this.task.items.forEach((_, place) => this.sheet.look(place) && this.save(place));
    return new Kind(this.sheet, this.stage, (place) => this.pick(place));
  }

  switchLayout() {
    if (!this.open) return;
    this.layoutName = this.layoutName === "grid" ? "filmstrip" : "grid";
    remember(LAYOUT, this.layoutName);
    this.layout = this.layOut();
    this.show();
  }

  show() {
    this.layout.show();
    const { left, length } = this.sheet;
    const open = left === 0 ? "" : left === 1 ? " (1 mask left)" : ` (${left} masks left)`;
    const kept = this.sheet.given.filter((one) => one?.default_used).length;
    const rest = kept ? `; the other ${kept} stay “no”` : "";
    this.left.textContent = left ? `${left} left` : "all answered";
    this.submitButton.textContent = this.frame.session.preview ? "Accept the task to submit" : `Submit${open}${rest}`;
    this.submitButton.disabled = left > 0 || this.submitting || this.frame.session.preview || length === 0;
  }

  /** @param {number} place */
  go(place) {
    if (!this.open) return;
    const before = this.sheet.now;
    if (this.sheet.go(place)) this.save(this.sheet.now);
    if (this.sheet.now === before && place !== before) return;
    this.show();
    this.say();
  }

  say() {
    const { now, length } = this.sheet;
    const given = this.sheet.given[now];
    announce(`question ${now + 1} of ${length}, ${this.task.category.name}, ${given ? `answer ${words(given)}` : "no answer yet"}`);
  }

  /**
   * A click: in a grid it changes the answer, in a filmstrip it brings a neighbour to the middle.
   * @param {number} place
   */
  pick(place) {
    if (this.layoutName === "grid" || place === this.sheet.now) this.toggle(place);
    else this.go(place);
  }

  /** @param {number} column */
  toggleInRow(column) {
    const columns = this.layout.columns();
    const place = Math.floor(this.sheet.now / columns) * columns + column;
    if (this.layoutName === "grid" && column < columns && place < this.sheet.length) this.toggle(place);
  }

  /** @param {number} place */
  toggle(place) {
    if (!this.open) return;
    this.sheet.go(place);
    if (this.sheet.toggle(place)) this.save(place);
    this.show();
    this.say();
  }

  /**
   * @param {Reply} reply
   * @param {Reason | null=} reason
   */
  answer(reply, reason = null) {
    if (!this.open) return;
    if (reply === "other" && !this.task.third) {
      announce("Here only yes and no are answers.");
      return;
    }
    const place = this.sheet.now;
    if (this.sheet.answer(place, reply, reason)) this.save(place);
    this.say();
    if (this.task.advance) {
      const next = this.sheet.nextOpen(place + 1);
      if (next !== -1) {
        if (this.sheet.go(next)) this.save(next);
      } else if (place + 1 < this.sheet.length) {
        this.sheet.go(place + 1);
      }
    }
    this.show();
  }

  /** Send an answer at once. @param {number} place */
  save(place) {
    if (this.ended || this.frame.session.preview) return;
    const record = this.sheet.record(place, this.layoutName);
    const sent = this.frame.outbox.push(`/api/tasks/${this.task.id}/answers`, "answers", record);
    sent.acknowledged.then((ack) => ack.error && this.refused(ack.error));
  }

  /** @param {{code: string, message: string}} error */
  refused(error) {
    // Each answer of a task that is over is refused by itself; one message, and one next task, are enough.
    if (this.ended) return;
    toast(error.message, { problem: true });
    if (error.code === "gone") this.end();
  }

  async renew() {
    if (document.hidden || this.frame.session.preview) return;
    try {
      await request("POST", `/api/tasks/${this.task.id}/renew`, {});
    } catch (error) {
      if (error instanceof ApiError && error.code === "gone") this.refused(error);
    }
  }

  async submit() {
    if (this.submitButton.disabled || !this.open) return;
    this.submitting = true;
    this.show();
    try {
      if (!(await this.frame.outbox.settled(10000))) {
        throw new ApiError(0, "offline", "Your answers are kept here but have not reached the server. Try again when it can be reached.");
      }
      if (this.ended) return;
      const seconds = this.sheet.seconds.reduce((sum, one) => sum + one, 0);
      const done = await request("POST", `/api/tasks/${this.task.id}/submit`, { seconds });
      if (done.message) toast(done.message, { problem: !done.accepted });
      if (finishAtPlatform(this.frame, done)) this.stop();
      else this.end();
    } catch (error) {
      this.submitting = false;
      this.show();
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    }
  }

  /** Let go of the page. */
  stop() {
    this.ended = true;
    this.frame.keys.clear("help");
    window.clearInterval(this.renewing);
    document.removeEventListener("visibilitychange", this.visibility);
    window.removeEventListener("resize", this.resized);
  }

  end() {
    if (this.ended) return;
    this.stop();
    this.onDone();
  }
}

/**
 * Fetch the next task and show it.
 * @param {Frame} frame
 */
async function next(frame) {
  try {
    const given = await request("POST", "/api/tasks", { kind: "questions" });
    if (given.task) {
      const asking = new Asking(frame, given.task, () => next(frame));
      asking.takeKeys();
      asking.say();
    } else {
      nothing(frame, given.complete ? "All questions are answered" : "Nothing to answer just now", given.message);
      if (!given.complete) window.setTimeout(() => next(frame), 5000);
    }
  } catch (error) {
    showProblem(frame.main, error);
  }
}

/**
 * @param {Frame} frame
 * @param {string} title
 * @param {string} text
 */
function nothing(frame, title, text) {
  frame.main.replaceChildren(element("div", { class: "message" }, element("h1", { text: title }), element("p", { text })));
}

await start(async (frame) => {
  frame.keys.on("help", () => window.open("/help", "_blank"));
  // A task that was begun holds the answers that an earlier page left, once they are there.
  await frame.outbox.leftBehind;
  await next(frame);
}, signInFromAddress);
