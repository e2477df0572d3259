// @ts-check
/**
 * Brush: a stroke that starts in the mask adds, one that starts outside subtracts; with Ctrl it always erases. The preview
 * shows exactly the pixels of the stroke. Without an object the stroke becomes a new one.
 */

import { INK } from "../editor/colours.js";
import { Layer, paintBitmap } from "../editor/layer.js";
import { blank, capsule, clip, difference, has, hull, over, overlap, stamp, union } from "../geometry/mask.js";
import { Tool } from "./tool.js";

/** @typedef {import("./tool.js").Point} Point */
/** @typedef {import("../geometry/mask.js").Box} Box */

const LEAST = 1;
const MOST = 400;

export class Brush extends Tool {
  /** @param {import("./tool.js").Editor} editor */
  constructor(editor) {
    super(editor);
    this.cursor = "brush";
    this.hint = "A stroke that starts in the mask adds to it, one from outside takes away. Ctrl erases. [ and ] change the size.";
    /** Diameter in image pixels. */
    this.size = 15;
    /** @type {"add" | "erase" | null} */
    this.mode = null;
    /** @type {Point | null} */
    this.last = null;
    /** @type {string | null} */
    this.target = null;
    /** The stroke so far, over the whole image, and the box that it fills. */
    this.stroke = blank({ x: 0, y: 0, width: 0, height: 0 });
    /** @type {Box} */
    this.box = { x: 0, y: 0, width: 0, height: 0 };
    /** @type {Layer | null} */
    this.layer = null;
  }

  get holds() {
    return true;
  }

  /** Another size, by a factor of at least one pixel. @param {1 | -1} step */
  resize(step) {
    const next = Math.max(this.size + step, this.size * (step > 0 ? 1.2 : 1 / 1.2));
    const smaller = Math.min(this.size - 1, this.size / 1.2);
    this.size = Math.round(Math.min(Math.max(step > 0 ? next : smaller, LEAST), MOST));
    this.editor.showSize(this.size);
    this.editor.moveCursor();
  }

  enter() {
    this.editor.showSize(this.size);
  }

  leave() {
    this.cancel();
    this.editor.showSize(null);
  }

  /** @param {Point} point */
  hover(point) {
    this.last = point;
    this.editor.setHovered(this.item(point)?.id ?? null);
  }

  /** @param {Point} point */
  item({ x, y }) {
    const { scene } = this.editor;
    return scene.current ?? scene.at(x, y);
  }

  /** @param {Point} point */
  down(point) {
    const { scene } = this.editor;
    const item = this.item(point);
    if (item) this.editor.select(item.id);
    this.target = item?.id ?? null;
    const inside = !item || has(item.bitmap, Math.floor(point.x), Math.floor(point.y));
    this.mode = inside && !point.erase ? "add" : "erase";
    if (this.stroke.width !== scene.width || this.stroke.height !== scene.height) {
      this.stroke = blank({ x: 0, y: 0, width: scene.width, height: scene.height });
      this.layer = new Layer(scene.width, scene.height);
    }
    this.last = point;
    this.paint(point, point);
  }

  /** @param {Point[]} points */
  drag(points) {
    for (const point of points) {
      if (this.mode && this.last) this.paint(this.last, point);
      this.last = point;
    }
  }

  /** @param {Point} from @param {Point} to */
  paint(from, to) {
    const piece = capsule(from.x, from.y, to.x, to.y, this.size);
    const shared = overlap(piece, this.stroke);
    if (!shared.width || !shared.height) return;
    stamp(this.stroke, piece, "set");
    this.box = hull(this.box, shared);
    const ink = this.mode === "add" ? INK.add : INK.erase;
    // Only the piece's box is painted, so the work of a frame does not grow with the stroke.
    this.layer?.paint(shared, (pixels, part) => {
      const own = over(this.stroke, shared);
      paintBitmap(pixels, part, own, this.layer?.step ?? 1, ink, ink);
    });
    this.editor.refresh();
  }

  /** @param {Point} point */
  up(point) {
    if (!this.mode) return;
    this.drag([point]);
    this.commit();
  }

  commit() {
    const { mode, target } = this;
    const { scene } = this.editor;
    if (!mode) return;
    const stroke = clip(over(this.stroke, this.box), scene.width, scene.height);
    this.cancel();
    if (!stroke.width) return;
    const item = scene.item(target);
    if (item) this.editor.change(item, mode === "add" ? union(item.bitmap, stroke) : difference(item.bitmap, stroke), `brush ${mode}`);
    else if (mode === "add") this.editor.create(stroke, "brush");
    else this.editor.say("There is nothing to erase here.");
  }

  cancel() {
    const had = this.mode !== null;
    const { stroke, box } = this;
    for (let row = box.y; row < box.y + box.height; row++) {
      stroke.data.fill(0, row * stroke.width + box.x, row * stroke.width + box.x + box.width);
    }
    this.layer?.paint(box, () => {});
    this.box = { x: 0, y: 0, width: 0, height: 0 };
    this.mode = null;
    this.editor.refresh();
    return had;
  }

  undo() {
    return this.cancel();
  }

  backspace() {
    this.cancel();
  }

  /** @param {import("./tool.js").Pen} pen */
  draw(pen) {
    if (!this.mode || !this.layer) return;
    const { view } = this.editor;
    this.layer.draw(pen.context, view, this.box);
    const { x, y, width, height } = view.boxToScreen(this.box);
    pen.mark(Math.max(x - 2, -2), Math.max(y - 2, -2), Math.min(x + width + 2, view.width + 2), Math.min(y + height + 2, view.height + 2));
  }
}
