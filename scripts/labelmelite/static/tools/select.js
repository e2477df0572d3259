// @ts-check
/** Select: a click chooses the smallest object under it, a longer move drags the image, a double click centres and edits. */

import { CLICK, Tool } from "./tool.js";

/** @typedef {import("./tool.js").Point} Point */

export class Select extends Tool {
  /** @param {import("./tool.js").Editor} editor */
  constructor(editor) {
    super(editor);
    this.cursor = "hand";
    this.hint = "Click an object to select it, double click to edit it, drag to move the image.";
    /** @type {Point | null} */
    this.start = null;
    /** @type {Point | null} */
    this.last = null;
    this.moved = false;
  }

  /** @param {Point} point */
  hover(point) {
    this.editor.setHovered(this.editor.scene.at(point.x, point.y)?.id ?? null);
  }

  /** @param {Point} point */
  down(point) {
    this.start = this.last = point;
    this.moved = false;
  }

  /** @param {Point[]} points */
  drag(points) {
    if (!this.start || !this.last) return;
    const point = points[points.length - 1];
    if (Math.hypot(point.sx - this.start.sx, point.sy - this.start.sy) > CLICK) this.moved = true;
    if (this.moved) this.editor.pan(point.sx - this.last.sx, point.sy - this.last.sy);
    this.last = point;
  }

  /** @param {Point} point */
  up(point) {
    if (this.start && !this.moved) this.editor.select(this.editor.scene.at(point.x, point.y)?.id ?? null);
    this.start = this.last = null;
  }

  /** @param {Point} point */
  double(point) {
    const item = this.editor.scene.at(point.x, point.y);
    if (!item) return;
    this.editor.select(item.id);
    this.editor.focus();
    if (!this.editor.readOnly) this.editor.use("edit");
  }

  backspace() {
    this.editor.deleteSelected();
  }
}
