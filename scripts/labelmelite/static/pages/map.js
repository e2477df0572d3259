// @ts-check
/** The embedding map: masks that look alike lie together. A lasso picks masks, which are then asked about. */

import { request, withQuery } from "../net/api.js";
import { Cell } from "../questions/cell.js";
import { View } from "../questions/scatter.js";
import { announce, element, number, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("../questions/scatter.js").Point} Point */
/** @typedef {{x: number[], y: number[], item: string[], verdict: string[], score: number[], explained: number[]}} Given */

const COLOURS = { accepted: "#4fd1a5", rejected: "#ff9e5e", undecided: "#a9b2bc" };
const REACH = 12;
const STEP = 12;

/** The points, the lasso, and what is under the cursor. */
class Chart {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    /** @type {Given} */
    this.given = { x: [], y: [], item: [], verdict: [], score: [], explained: [] };
    this.view = new View([], []);
    this.canvas = element("canvas", { tabindex: "0", role: "application", "aria-label": "Embedding map with a lasso" });
    this.peek = element("div", { class: "peek" });
    this.legend = element("p", { class: "legend faint" });
    this.stage = element("div", { class: "map" }, this.canvas, this.peek, this.legend);
    this.count = element("span", { class: "left", role: "status", text: "nothing picked" });
    this.ask = element("button", { class: "main", text: "Ask about these", onclick: () => this.send() });
    this.clear = element("button", { text: "Clear", onclick: () => this.pick([]) });
    /** @type {number[]} */
    this.picked = [];
    /** @type {Point[]} */
    this.line = [];
    /** @type {Point} */
    this.cross = { x: 0, y: 0 };
    this.showsCross = false;
    this.peeked = -1;
    this.dirty = false;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.stage);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", () => this.release());
    canvas.addEventListener("pointercancel", () => { this.line = []; this.redraw(); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.view.zoom({ x: event.offsetX, y: event.offsetY }, Math.exp(-event.deltaY / 400));
      this.redraw();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {Given} given */
  take(given) {
    this.given = given;
    this.view = new View(given.x, given.y);
    this.view.fit(this.stage.clientWidth, this.stage.clientHeight);
    this.cross = { x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 };
    const share = given.explained.reduce((sum, one) => sum + one, 0);
    this.legend.textContent = `${number(given.x.length)} masks on the two directions in which they differ most (${number(100 * share)} % of the variance). ● accepted, ✕ rejected, ○ undecided.`;
    this.pick([]);
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.stage.clientWidth * ratio;
    this.canvas.height = this.stage.clientHeight * ratio;
    this.redraw();
  }

  redraw() {
    if (this.dirty) return;
    this.dirty = true;
    window.requestAnimationFrame(() => {
      this.dirty = false;
      this.draw();
    });
  }

  draw() {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const picked = new Set(this.picked);
    for (let place = 0; place < this.given.x.length; place += 1) {
      const { x, y } = this.view.at(place);
      drawPoint(context, x, y, this.given.verdict[place], picked.has(place));
    }
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    this.line.forEach((point, place) => (place ? context.lineTo(point.x, point.y) : context.moveTo(point.x, point.y)));
    if (this.line.length > 2) context.closePath();
    context.stroke();
    context.setLineDash([]);
    if (this.showsCross) {
      context.strokeStyle = "#6cb6ff";
      context.strokeRect(this.cross.x - 7, this.cross.y, 14, 0);
      context.strokeRect(this.cross.x, this.cross.y - 7, 0, 14);
    }
  }

  /** @param {PointerEvent} event */
  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.showsCross = false;
    this.panning = event.shiftKey || event.button === 1;
    if (!this.panning) this.line = [{ x: event.offsetX, y: event.offsetY }];
  }

  /** @param {PointerEvent} event */
  moved(event) {
    const where = { x: event.offsetX, y: event.offsetY };
    if (!event.buttons) {
      this.look(where);
    } else if (this.panning) {
      this.view.move(event.movementX, event.movementY);
      this.redraw();
    } else if (this.line.length) {
      this.line.push(where);
      this.redraw();
    }
  }

  release() {
    if (!this.panning && this.line.length > 2) this.pick(this.view.inside(this.line));
    this.panning = false;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    /** @type {Record<string, Point>} */
    const steps = { ArrowLeft: { x: -STEP, y: 0 }, ArrowRight: { x: STEP, y: 0 }, ArrowUp: { x: 0, y: -STEP }, ArrowDown: { x: 0, y: STEP } };
    const step = steps[event.key];
    if (step) {
      this.cross = { x: this.cross.x + step.x, y: this.cross.y + step.y };
      this.look(this.cross);
    } else if (event.key === "Enter") {
      this.line.push({ ...this.cross });
      announce(`point ${this.line.length} of the lasso`);
    } else if (event.key.toLowerCase() === "c") {
      this.pick(this.view.inside(this.line));
    } else if (event.key === "+" || event.key === "-") {
      this.view.zoom(this.cross, event.key === "+" ? 1.25 : 0.8);
    } else if (event.key === "Escape") {
      this.pick([]);
    } else {
      return;
    }
    event.preventDefault();
    this.showsCross = true;
    this.redraw();
  }

  /** @param {number[]} places */
  pick(places) {
    this.picked = places;
    if (!places.length) this.line = [];
    this.count.textContent = places.length ? `${number(places.length)} picked` : "nothing picked";
    this.ask.disabled = this.clear.disabled = places.length === 0;
    this.redraw();
  }

  /**
   * Show the mask under the cursor.
   * @param {Point} where
   */
  async look(where) {
    const place = this.view.nearest(where, REACH);
    if (place === this.peeked) return;
    this.peeked = place;
    this.peek.replaceChildren();
    if (place === -1) return;
    try {
      const { items } = await request("GET", withQuery("/api/map/items", { items: this.given.item[place] }));
      if (place !== this.peeked || !items.length) return;
      const cell = new Cell(items[0], `score ${number(this.given.score[place], 2)}`);
      cell.showAnswer(items[0].answer ?? null);
      await cell.draw();
      if (place === this.peeked) this.peek.replaceChildren(cell.element);
      announce(`${items[0].alt}, ${this.given.verdict[place]}`);
    } catch (error) {
      this.peek.textContent = error instanceof Error ? error.message : String(error);
    }
  }

  async send() {
    const items = this.picked.map((place) => this.given.item[place]);
    try {
      const done = await request("POST", "/api/map/questions", { items, name: "lasso" });
      toast(`${number(done.queued)} masks are asked about next${done.known ? `; ${number(done.known)} were answered before` : ""}.`);
      this.pick([]);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    }
  }
}

/**
 * Draw a point in the shape of its verdict, so that colour is not all that tells it.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {string} verdict
 * @param {boolean} picked
 */
function drawPoint(context, x, y, verdict, picked) {
  const colour = COLOURS[/** @type {keyof typeof COLOURS} */ (verdict)] ?? COLOURS.undecided;
  context.strokeStyle = context.fillStyle = picked ? "#ffffff" : colour;
  context.lineWidth = picked ? 2 : 1.2;
  context.beginPath();
  if (verdict === "rejected") {
    context.moveTo(x - 3, y - 3);
    context.lineTo(x + 3, y + 3);
    context.moveTo(x + 3, y - 3);
    context.lineTo(x - 3, y + 3);
    context.stroke();
  } else {
    context.arc(x, y, 3, 0, 2 * Math.PI);
    if (verdict === "accepted") context.fill();
    else context.stroke();
  }
}

await start(async (frame) => {
  const address = new URLSearchParams(window.location.search);
  const tree = await request("GET", "/api/tree");
  const category = element("select", {}, element("option", { value: "", text: "every category" }), ...tree.nodes.map((/** @type {any} */ node) => element("option", { value: node.category_id ?? node.category, text: node.category })));
  category.value = address.get("category") ?? "";
  const chart = new Chart(frame);
  const bar = element("div", { class: "bar" },
    element("label", {}, "Category", category), chart.count, chart.ask, chart.clear,
    element("span", { class: "faint", text: "Draw round masks to pick them. Wheel zooms, Shift with a drag moves. By keyboard: arrows move the cross, Enter sets a point of the lasso, C closes it." }),
  );
  frame.main.replaceChildren(element("h1", { class: "hidden-text", text: "Embedding map" }), chart.stage, bar);
  category.addEventListener("change", () => load());

  async function load() {
    const given = await request("GET", withQuery("/api/map", { category: category.value, limit: 20000 }));
    window.history.replaceState(null, "", withQuery("/map", { category: category.value }));
    chart.take(given);
  }

  await load();
});
