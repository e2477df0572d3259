// @ts-check
/** Edits and redraws of the loop (thesis, section 4.4.1): one object at a time, centred, with the boundary tool alone. */

import { confirm } from "../editor/dialogs.js";
import { actionButton } from "../editor/actions.js";
import { loadPicture, makeWorkspace } from "../editor/workspace.js";
import { History } from "../geometry/history.js";
import { fromRle } from "../geometry/mask.js";
import { request } from "../net/api.js";
import { announce, element, showProblem, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("../geometry/rle.js").Rle} Rle */
/** @typedef {import("../editor/workspace.js").Workspace} Workspace */
/** @typedef {{after: Rle | null}} Drawn */
/**
 * @typedef {object} Item
 * @property {string} id
 * @property {number} width
 * @property {number} height
 * @property {number[]} box
 * @property {Rle} [mask]
 * @property {string} image_url
 * @property {Drawn | null} answer
 */
/** @typedef {{id: string, kind: "edits" | "redraws", category: {id: number, name: string, definition: string}, items: Item[]}} Task */

const RENEW_EVERY = 60_000;

/** One task on the page. */
class Drawing {
  /** @param {Frame} frame @param {Task} task @param {() => void} onDone */
  constructor(frame, task, onDone) {
    this.frame = frame;
    this.task = task;
    this.onDone = onDone;
    this.redraw = task.kind === "redraws";
    this.now = 0;
    this.seen = new Set();
    /** What was done to each item, so that undo works after going back to it. @type {Map<string, {history: History, after: Rle | null}>} */
    this.states = new Map();
    /** Seconds at the whole task, and at each item in all, while the page was visible. */
    this.seconds = { task: 0, items: /** @type {Map<string, number>} */ (new Map()) };
    this.since = performance.now();
    this.hidden = document.hidden;
    this.workspace = makeWorkspace(frame, {
      tools: this.redraw ? ["new", "brush", "edit"] : ["edit"],
      single: true,
      askCategory: async () => task.category.name,
      changed: () => this.save(),
      shown: () => {},
    });
    this.editor = this.workspace.editor;
    this.left = element("span", { class: "left number" });
    this.previous = actionButton(frame.keys, "image.previous", "previous", "Previous", () => this.go(this.now - 1), "plain");
    this.next = actionButton(frame.keys, "image.next", "next", "Next", () => this.go(this.now + 1), "plain");
    /** Whether the task is over or about to be; nothing may change beside the submission. */
    this.ended = false;
    this.submitting = false;
    this.main = element("button", { class: "main", onclick: () => this.forward() });
    frame.keys.describe(this.main, "submit");
    const absent = element("button", { text: `No ${task.category.name} here`, onclick: () => this.sayAbsent() });
    const order = this.redraw ? `Please draw the ${task.category.name} in the frame` : `Please correct the boundary of this ${task.category.name}`;
    frame.main.replaceChildren(
      element("div", { class: "task-bar" }, element("h1", { text: order }), element("p", { text: task.category.definition }),
        element("span", { class: "push spread" }, this.previous, this.left, this.next, absent, this.main)),
      element("div", { class: "work alone" }, this.workspace.tools, this.workspace.host),
      this.workspace.foot,
    );
    frame.keys.on("image.previous", () => this.go(this.now - 1));
    frame.keys.on("image.next", () => this.go(this.now + 1));
    frame.keys.on("submit", () => this.forward());
    this.visibility = () => this.count();
    document.addEventListener("visibilitychange", this.visibility);
    this.renewing = window.setInterval(() => {
      // An expired lease is told by the next answer.
      if (!document.hidden) request("POST", `/api/tasks/${task.id}/renew`, {}).catch(() => {});
    }, RENEW_EVERY);
  }

  get open() {
    return !this.ended && !this.submitting;
  }

  get item() {
    return this.task.items[this.now];
  }

  /** Add the time since the last call; of the answers about an item the server takes the longest time. */
  count() {
    const now = performance.now();
    // When the page has just become visible again, the time before was spent elsewhere.
    const visible = !this.hidden;
    this.hidden = document.hidden;
    if (visible) {
      const seconds = (now - this.since) / 1000;
      this.seconds.items.set(this.item.id, (this.seconds.items.get(this.item.id) ?? 0) + seconds);
      this.seconds.task += seconds;
    }
    this.since = now;
  }

  /** Send what the item looks like now; the latest answer counts. */
  save() {
    if (this.ended) return;
    this.count();
    const { item, editor } = this;
    const own = [...editor.scene.items.values()][0];
    const after = own?.mask ?? null;
    this.states.set(item.id, { history: editor.history, after });
    this.send(after);
  }

  /** @param {Rle | null} after */
  send(after) {
    const { item } = this;
    const seconds = this.seconds.items.get(item.id) ?? 0;
    const answer = { item: item.id, before: item.mask ?? null, after, seconds };
    const { acknowledged } = this.frame.outbox.push(`/api/tasks/${this.task.id}/answers`, "answers", answer);
    item.answer = { after };
    acknowledged.then((ack) => {
      if (ack.error) toast(`Not saved: ${ack.error.message}`, { problem: true });
    });
  }

  async sayAbsent() {
    const { item } = this;
    if (!this.open || !(await confirm(this.frame.keys, `Is there really no ${this.task.category.name} here?`, "There is none"))) return;
    if (!this.open || item !== this.item) return;
    this.count();
    this.send(null);
    this.states.delete(this.item.id);
    await this.forward();
  }

  /** @param {number} place */
  async go(place) {
    if (!this.open || place < 0 || place >= this.task.items.length) return;
    this.leaveItem();
    this.now = place;
    await this.show();
  }

  /** An edit that was left as it is says that the mask is right. */
  leaveItem() {
    this.editor.tool.cancel();
    this.count();
    const { item } = this;
    if (!item.answer && item.mask && !this.redraw) this.send(item.mask);
  }

  async show() {
    const { item, editor, task, workspace } = this;
    this.count();
    this.seen.add(item.id);
    workspace.host.setAttribute("aria-busy", "true");
    editor.loading = true;
    const state = this.states.get(item.id);
    const mask = state ? state.after : item.answer ? item.answer.after : (item.mask ?? null);
    const picture = await loadPicture(item.image_url).catch((error) => {
      toast(error.message, { problem: true });
      return null;
    });
    if (item !== this.item) return;
    const objects = mask ? [{ id: item.id, category: task.category.name, mask }] : [];
    await editor.open({ width: item.width, height: item.height, objects, picture, history: state?.history });
    // Somebody has gone on meanwhile: that item is still loaded, and what is drawn now would be saved as its mask.
    if (item !== this.item || this.ended) return;
    const [x, y, width, height] = item.box;
    editor.box = this.redraw ? { x, y, width, height } : null;
    if (mask) editor.select(item.id);
    editor.view.focus(mask && !this.redraw ? fromRle(mask) : { x, y, width, height });
    editor.moved();
    editor.use(this.redraw && !mask ? "new" : "edit");
    workspace.host.removeAttribute("aria-busy");
    editor.loading = false;
    this.showPlace();
  }

  showPlace() {
    const { items } = this.task;
    const last = this.now === items.length - 1;
    this.left.textContent = `${this.now + 1} of ${items.length}`;
    this.previous.disabled = this.now === 0;
    this.next.disabled = last;
    this.main.textContent = this.unseen() < 0 && last ? "Submit" : "Next";
    announce(`Object ${this.now + 1} of ${items.length}, ${this.task.category.name}`);
  }

  unseen() {
    return this.task.items.findIndex((one) => !this.seen.has(one.id) && !one.answer);
  }

  /** To the next item, to one that was passed over, or to the end. */
  async forward() {
    if (!this.open) return;
    if (this.redraw && !this.item.answer) {
      this.editor.say(`Draw the ${this.task.category.name} first, or say that there is none.`);
      return;
    }
    if (this.now + 1 < this.task.items.length) await this.go(this.now + 1);
    else if (this.unseen() >= 0) await this.go(this.unseen());
    else await this.submit();
  }

  async submit() {
    this.leaveItem();
    this.submitting = true;
    this.editor.loading = true;
    this.main.disabled = true;
    try {
      if (!(await this.frame.outbox.settled(10_000))) {
        toast("The server cannot be reached. Your work is kept here; please submit again later.", { problem: true });
        return;
      }
      const given = await request("POST", `/api/tasks/${this.task.id}/submit`, { seconds: this.seconds.task });
      toast(given.message || "Thank you.");
      this.end();
      this.onDone();
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    } finally {
      this.submitting = false;
      this.editor.loading = false;
      this.main.disabled = false;
    }
  }

  end() {
    this.ended = true;
    this.frame.keys.clear("help");
    window.clearInterval(this.renewing);
    document.removeEventListener("visibilitychange", this.visibility);
    this.editor.close();
  }
}

await start(async (frame) => {
  await frame.outbox.leftBehind;
  await nextTask();

  async function nextTask() {
    let message = "";
    const wanted = new URLSearchParams(window.location.search).getAll("item");
    try {
      for (const kind of ["edits", "redraws"]) {
        const given = await request("POST", "/api/tasks", { kind, ...(wanted.length && kind === "edits" ? { items: wanted } : {}) });
        if (given.task) {
          // Asked for once; after a reload the server gives the unfinished task again.
          window.history.replaceState(null, "", window.location.pathname);
          const drawing = new Drawing(frame, given.task, nextTask);
          Object.assign(window, { editor: drawing.editor });
          await drawing.show();
          return;
        }
        message ||= given.message;
      }
    } catch (error) {
      showProblem(frame.main, error);
      return;
    }
    frame.main.replaceChildren(element("div", { class: "message" },
      element("h1", { text: "There is nothing to draw at the moment" }),
      element("p", { text: message || "Masks come here when somebody refuses them for how they are drawn." }),
      element("p", {}, element("button", { text: "Look again", onclick: () => nextTask() }), " ", element("a", { class: "button", href: "/questions", text: "To the questions" })),
    ));
  }
});
