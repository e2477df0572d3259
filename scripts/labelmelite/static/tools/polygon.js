// @ts-check
/** New: clicks set the corners of a polygon, corners can be dragged, other drags move the image; the first corner closes it. */

import { INK } from "../editor/colours.js";
import { fill } from "../geometry/fill.js";
import { clip } from "../geometry/mask.js";
import { CLICK, Tool } from "./tool.js";

/** @typedef {import("./tool.js").Point} Point */

/** A corner is hit within this many screen pixels. */
const HIT = 12;

export class Polygon extends Tool {
  /** @param {import("./tool.js").Editor} editor */
  constructor(editor) {
    super(editor);
    this.hint = "Click the corners of the object; click the first one again, or press Enter, to close it. Backspace takes a corner back.";
    /** @type {[number, number][]} */
    this.corners = [];
    /** @type {Point | null} */
    this.start = null;
    /** @type {Point | null} */
    this.last = null;
    /** The corner that is dragged. */
    this.held = -1;
    this.moved = false;
  }

  /** The corner at a place, or -1. @param {Point} point */
  cornerAt({ sx, sy }) {
    return this.corners.findIndex(([x, y]) => {
      const [cx, cy] = this.editor.view.toScreen(x, y);
      return Math.hypot(cx - sx, cy - sy) <= HIT;
    });
  }

  /** @param {Point} point */
  hover(point) {
    this.last = point;
    this.editor.setHovered(null);
    if (this.corners.length) this.editor.refresh();
  }

  /** @param {Point} point */
  down(point) {
    this.start = this.last = point;
    this.held = this.cornerAt(point);
    this.moved = false;
  }

  /** @param {Point[]} points */
  drag(points) {
    const point = points[points.length - 1];
    const { start, last } = this;
    this.last = point;
    if (!start || !last) return;
    if (Math.hypot(point.sx - start.sx, point.sy - start.sy) > CLICK) this.moved = true;
    if (!this.moved) return;
    if (this.held >= 0) {
      this.corners[this.held] = this.inside(point);
      this.editor.refresh();
    } else this.editor.pan(point.sx - last.sx, point.sy - last.sy);
  }

  /** @param {Point} point */
  up(point) {
    if (!this.start) return;
    this.start = null;
    this.last = point;
    if (this.moved) return;
    if (this.held === 0 && this.corners.length > 2) this.commit();
    else if (this.held < 0) {
      this.corners.push(this.inside(point));
      this.editor.say(`Corner ${this.corners.length}.`);
    }
    this.editor.refresh();
  }

  double() {
    if (this.corners.length > 2) this.commit();
  }

  /** @param {Point} point @returns {[number, number]} */
  inside({ x, y }) {
    const { width, height } = this.editor.scene;
    return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  }

  commit() {
    if (this.corners.length < 3) {
      this.editor.say("A polygon needs three corners.");
      return;
    }
    const { width, height } = this.editor.scene;
    const bitmap = clip(fill(this.corners.flat()), width, height);
    if (!bitmap.width) {
      this.editor.say("The polygon holds no pixel. Move its corners apart.");
      return;
    }
    const { corners } = this;
    this.corners = [];
    this.editor.create(bitmap, "polygon", () => {
      // The name was not given: the corners stay, so that no work is lost.
      this.corners = corners;
      this.editor.refresh();
    });
  }

  cancel() {
    const had = this.corners.length > 0;
    this.corners = [];
    this.start = null;
    this.editor.refresh();
    return had;
  }

  undo() {
    if (!this.corners.length) return false;
    this.backspace();
    return true;
  }

  backspace() {
    this.corners.pop();
    this.editor.refresh();
  }

  /** @param {import("./tool.js").Pen} pen */
  draw(pen) {
    const { corners, last } = this;
    if (!corners.length) return;
    const points = corners.flat();
    pen.line(points, { colour: INK.outline, width: 2.5, halo: INK.halo });
    if (last) pen.line([...corners[corners.length - 1], last.x, last.y], { colour: INK.pale, width: 2, dash: [4, 5], halo: INK.halo });
    corners.forEach(([x, y], place) => pen.dot(x, y, { radius: place ? 4.5 : 7, fill: place ? INK.outline : INK.kept }));
  }
}
