// @ts-check
/** One's own answers, which can be looked at again and changed. */

import { request, withQuery } from "../net/api.js";
import { Cell, words } from "../questions/cell.js";
import { element, number, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {{task: string, item: import("../questions/sheet.js").Item, reply: "yes" | "no" | "other", reason: any, time: string, changeable: boolean}} Reviewed */

const AT_ONCE = 24;

await start(async (frame) => {
  const list = element("div", { class: "stage grid" });
  const count = element("span", { class: "faint", role: "status" });
  const more = element("button", { text: "Show more", onclick: () => load(list.children.length) });
  list.style.setProperty("--columns", window.innerWidth < 700 ? "1" : window.innerWidth < 1200 ? "3" : "4");
  frame.main.replaceChildren(
    element("div", { class: "spread" }, element("h1", { text: "My answers" }), count),
    element("p", { text: "The newest come first. A changed answer counts from then on; the earlier one is kept as well." }),
    list,
    more,
  );

  /** @param {number} offset */
  async function load(offset) {
    const found = await request("GET", withQuery("/api/review", { offset, limit: AT_ONCE }));
    list.append(...found.answers.map((/** @type {Reviewed} */ one) => reviewed(frame, one)));
    count.textContent = `${number(found.total)} answers`;
    more.hidden = list.children.length >= found.total;
    if (!found.total) list.replaceChildren(element("p", { class: "faint", text: "You have not answered anything yet." }));
  }

  // What an earlier page left counts among the answers.
  await frame.outbox.leftBehind;
  await load(0);
});

/**
 * @param {Frame} frame
 * @param {Reviewed} one
 */
function reviewed(frame, one) {
  const cell = new Cell(one.item, new Date(one.time).toLocaleString());
  cell.showAnswer({ reply: one.reply, reason: one.reason, default_used: false });
  cell.draw();
  const buttons = element("div", { class: "answers" });
  for (const [reply, label] of /** @type {const} */ ([["yes", "✓ Yes"], ["no", "✗ No"]])) {
    const button = element("button", { text: label, "aria-label": `${label}: ${one.item.alt}`, onclick: () => change(reply) });
    button.dataset.reply = reply;
    button.disabled = !one.changeable;
    buttons.append(button);
  }
  const gold = frame.session.annotator.role === "owner"
    ? element("button", { text: "Use as gold", title: "Others are asked about this mask to see how well they answer.", "aria-label": `Use as gold: ${one.item.alt}`, onclick: makeGold })
    : null;
  buttons.append(element("a", { class: "button", href: `/edit?item=${encodeURIComponent(one.item.id)}`, text: "Edit", "aria-label": `Edit: ${one.item.alt}` }));
  if (gold) buttons.append(gold);
  const note = one.changeable ? null : element("p", { class: "faint", text: "Part of a finished audit: it stays as it is." });

  /** @param {"yes" | "no"} reply */
  async function change(reply) {
    const sent = frame.outbox.push(`/api/tasks/${one.task}/answers`, "answers", { item: one.item.id, reply, reason: null, seconds: 0, default_used: false, layout: "grid" });
    const ack = await sent.acknowledged;
    if (ack.error) {
      toast(ack.error.message, { problem: true });
      return;
    }
    one.reply = reply;
    one.reason = null;
    cell.showAnswer({ reply, reason: null, default_used: false });
    toast(`Changed: ${words({ reply, reason: null, default_used: false })}`);
  }

  async function makeGold() {
    try {
      await request("PUT", "/api/gold", { task: one.task, item: one.item.id, reply: one.reply });
      toast(`Gold: the right answer is ${one.reply}`);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    }
  }
  return element("div", {}, cell.element, buttons, note);
}
