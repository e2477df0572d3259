// @ts-check
/**
 * Edit: a trace, drawn by a drag or between two clicks, replaces a part of a contour (boundary reroute). Object and contour
 * are locked when the trace begins. The preview is lines only; pixels are made when the trace is committed.
 */

import { INK } from "../editor/colours.js";
import { nearestLoop } from "../geometry/contour.js";
import { apply, plan, removeLoop } from "../geometry/reroute.js";
import { CLICK, Tool } from "./tool.js";

/** @typedef {import("./tool.js").Point} Point */
/** @typedef {import("../geometry/contour.js").Loop} Loop */
/** @typedef {import("../geometry/reroute.js").Plan} Plan */

/** Within this many screen pixels of its contour the selected object is meant, whatever lies under the pointer. */
const LOYAL = 60;

export class Edit extends Tool {
  /** @param {import("./tool.js").Editor} editor */
  constructor(editor) {
    super(editor);
    this.hint = "Draw along the true boundary: drag, or click at both ends. X keeps the other part, Escape drops the trace.";
    /** @type {number[] | null} */
    this.trace = null;
    /** @type {{id: string, loop: Loop} | null} */
    this.locked = null;
    /** @type {Point | null} */
    this.start = null;
    /** @type {Point | null} */
    this.last = null;
    this.dragging = false;
    /** Whether the trace goes on between two clicks. */
    this.clicking = false;
    this.swap = false;
    /** @type {Plan | null} */
    this.planned = null;
  }

  /**
   * The object that a trace from here would edit.
   * @param {Point} point
   */
  target({ x, y }) {
    const { scene, view } = this.editor;
    const selected = scene.current;
    if (this.editor.single) return selected;
    const under = scene.at(x, y);
    if (selected && (under === selected || scene.distance(selected, x, y) * view.zoom <= LOYAL)) return selected;
    return under ?? selected ?? scene.nearest(x, y);
  }

  /** @param {Point} point */
  hover(point) {
    this.last = point;
    if (this.clicking) this.extend([point]);
    else this.editor.setHovered(this.target(point)?.id ?? null);
  }

  /** @param {Point} point */
  down(point) {
    this.start = this.last = point;
    this.dragging = false;
    if (this.clicking) return;
    const item = this.target(point);
    const found = item && nearestLoop(item.loops, point.x, point.y);
    if (!item || !found) {
      this.editor.say("There is no object to edit. Draw one with New.");
      return;
    }
    this.editor.select(item.id);
    this.locked = { id: item.id, loop: found.loop };
    this.trace = [point.x, point.y];
    this.swap = false;
    this.plan();
  }

  /** @param {Point[]} points */
  drag(points) {
    const point = points[points.length - 1];
    this.last = point;
    if (!this.trace || !this.start) return;
    if (Math.hypot(point.sx - this.start.sx, point.sy - this.start.sy) > CLICK) this.dragging = true;
    this.extend(points);
  }

  /** @param {Point} point */
  up(point) {
    if (!this.trace) return;
    if (this.dragging || this.clicking) {
      this.extend([point]);
      this.commit();
    } else {
      this.clicking = true;
      this.trace = [point.x, point.y];
      this.plan();
      this.editor.say("The trace has begun. Click where it ends.");
    }
  }

  /** @param {Point[]} points */
  extend(points) {
    const { trace } = this;
    if (!trace) return;
    const least = 0.75 / this.editor.view.zoom;
    for (const { x, y } of points) {
      if (Math.hypot(x - trace[trace.length - 2], y - trace[trace.length - 1]) >= least) trace.push(x, y);
    }
    this.plan();
  }

  /** The plan is made once a frame, when it is drawn. */
  plan() {
    this.planned = null;
    this.editor.refresh();
  }

  /** @returns {Plan | null} */
  current() {
    const { scene, view } = this.editor;
    if (!this.trace || !this.locked) return null;
    const { zoom } = view;
    this.planned ??= plan(this.locked.loop, this.trace, { zoom, width: scene.width, height: scene.height, swap: this.swap });
    return this.planned;
  }

  other() {
    if (!this.trace) return;
    this.swap = !this.swap;
    this.plan();
    this.editor.say(this.swap ? "The other part is kept." : "The larger part is kept.");
  }

  commit() {
    const planned = this.current();
    const { scene } = this.editor;
    const item = this.locked && scene.item(this.locked.id);
    const loop = this.locked?.loop;
    this.cancel();
    if (!planned || !item || !loop) return;
    this.editor.change(item, apply(item.bitmap, loop, planned, scene), "reroute");
  }

  cancel() {
    const had = this.trace !== null;
    this.trace = this.locked = this.planned = this.start = null;
    this.dragging = this.clicking = this.swap = false;
    this.editor.refresh();
    return had;
  }

  undo() {
    return this.cancel();
  }

  get busy() {
    return this.trace !== null;
  }

  /** Delete the contour nearest to the pointer: a part, or a hole. */
  backspace() {
    if (this.cancel()) return;
    const { last } = this;
    const item = (last && this.target(last)) ?? this.editor.scene.current;
    const found = item && nearestLoop(item.loops, last?.x ?? 0, last?.y ?? 0);
    if (item && found) this.editor.change(item, removeLoop(item.bitmap, found.loop), "contour");
  }

  /** @param {import("./tool.js").Pen} pen */
  draw(pen) {
    const planned = this.current();
    const item = this.locked && this.editor.scene.item(this.locked.id);
    if (!planned || !item) return;
    for (const loop of item.loops) {
      if (loop !== this.locked?.loop || planned.closed) pen.line(loop.points, { colour: INK.pale, width: 1.5, closed: true, halo: INK.halo });
    }
    if (planned.closed) {
      pen.line(planned.polygon, { colour: INK.outline, width: 3, closed: true, halo: INK.halo });
    } else {
      pen.line(planned.dropped, { colour: INK.pale, width: 4 });
      pen.line(planned.dropped, { colour: INK.dropped, width: 2.5, dash: [7, 6] });
      pen.line(planned.polygon, { colour: INK.outline, width: 5, closed: true, halo: INK.halo });
      pen.line(planned.kept, { colour: INK.kept, width: 2.5 });
    }
    const end = planned.trace.length - 2;
    pen.dot(planned.trace[0], planned.trace[1], { radius: 4, fill: INK.outline });
    pen.dot(planned.trace[end], planned.trace[end + 1], { radius: 4, fill: INK.outline });
  }
}
