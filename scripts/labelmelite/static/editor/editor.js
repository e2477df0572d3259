// @ts-check
/**
 * The editor of one image: what is selected, which tool is on, and every change of an object. It draws through the stage,
 * knows no server, and tells the page what happened.
 */

import { fromRle, hull, union } from "../geometry/mask.js";
import { fillHoles, grow, largestPart, shrink } from "../geometry/morphology.js";
import { History } from "../geometry/history.js";
import { uuid } from "../net/api.js";
import { Brush } from "../tools/brush.js";
import { Edit } from "../tools/edit.js";
import { Polygon } from "../tools/polygon.js";
import { Select } from "../tools/select.js";
import { cssColour } from "./colours.js";
import { Cross } from "./cross.js";
import { drawOutlines } from "./outlines.js";
import { listen } from "./pointer.js";
import { Scene } from "./scene.js";
import { Stage } from "./stage.js";
import { Work } from "./work.js";

/** @typedef {import("../geometry/mask.js").Bitmap} Bitmap */
/** @typedef {import("../geometry/history.js").Change} Change */
/** @typedef {import("../tools/tool.js").Tool} Tool */
/** @typedef {import("../tools/tool.js").Point} Point */
/** @typedef {import("./scene.js").Item} Item */
/** @typedef {import("./scene.js").Given} Given */
/** @typedef {"select" | "edit" | "brush" | "new"} ToolName */
/** @typedef {{undoes?: Change, redoes?: Change}} Reference */

/**
 * What the page does for the editor.
 * @typedef {object} Page
 * @property {(change: Change, reference: Reference, tool: string, seconds: number) => void} changed
 * @property {() => void} shown something of the list or the buttons is to be drawn anew
 * @property {(text: string) => void} say
 * @property {(suggestion: string) => Promise<string | null>} askCategory
 * @property {(question: string) => Promise<boolean>} confirm
 */

export class Editor {
  /**
   * @param {HTMLElement} host
   * @param {Page} page
   * @param {{single?: boolean, readOnly?: boolean}} [options] single: there is one object, and tools mean it
   */
  constructor(host, page, { single = false, readOnly = false } = {}) {
    this.page = page;
    this.single = single;
    this.readOnly = readOnly;
    this.stage = new Stage(host);
    this.work = new Work();
    this.history = new History();
    this.brush = new Brush(this);
    /** @type {Record<ToolName, Tool>} */
    this.tools = { select: new Select(this), edit: new Edit(this), brush: this.brush, new: new Polygon(this) };
    /** @type {ToolName} */
    this.toolName = "select";
    this.cross = new Cross(this);
    this.pointer = listen(this, host);
    this.brightness = 1;
    /** When the present piece of work began. */
    this.since = performance.now();
    this.busy = false;
    /** While another image is loaded nothing is changed: the change would belong to neither. */
    this.loading = false;
    this.stage.draw = (pen) => this.draw(pen);
    /** Diameter of the brush while it is on. @type {number | null} */
    this.size = null;
    /** A frame around what is to be drawn. @type {import("../geometry/mask.js").Box | null} */
    this.box = null;
    document.addEventListener("visibilitychange", () => {
      // Time that was spent elsewhere is no work.
      if (!document.hidden) this.since = performance.now();
    });
    this.use("select");
  }

  /** Whether objects may not be changed now. */
  get frozen() {
    return this.readOnly || this.loading;
  }

  get scene() {
    return this.stage.scene;
  }

  get view() {
    return this.stage.view;
  }

  get tool() {
    return this.tools[this.toolName];
  }

  /**
   * Show an image and its objects.
   * @param {{width: number, height: number, objects: Given[], picture: CanvasImageSource | null, history?: History}} image
   */
  async open({ width, height, objects, picture, history = new History() }) {
    this.tool.cancel();
    const decoded = await this.work.decode(objects.map((one) => one.mask));
    const scene = new Scene(width, height);
    objects.forEach((one, place) => scene.add(one, decoded[place]));
    this.history = history;
    this.stage.show(picture, scene);
    this.cross.reset();
    this.since = performance.now();
    this.page.shown();
  }

  /** End what goes on beside the page. */
  close() {
    this.work.worker.terminate();
  }

  // --- what is meant

  /** @param {ToolName} name */
  use(name) {
    if (this.readOnly && name !== "select") return;
    this.tool.leave();
    this.toolName = name;
    this.tool.enter();
    this.stage.root.dataset.cursor = this.tool.cursor;
    this.pointer.moveCursor();
    this.page.shown();
    this.say(this.tool.hint);
    this.refresh();
  }

  /** @param {string | null} id */
  select(id) {
    if (this.scene.selected === id) return;
    this.scene.selected = id;
    this.since = performance.now();
    const item = this.scene.current;
    if (item) this.say(`${item.category}, ${item.area} pixels`);
    this.page.shown();
    this.refresh();
  }

  /** @param {string | null} id */
  setHovered(id) {
    if (this.scene.hovered === id) return;
    this.scene.hovered = id;
    this.refresh();
  }

  /** Leave the tool; without one, let go of the object and fit the image. */
  leave() {
    if (this.tool.cancel()) return;
    if (this.toolName !== "select" && !this.single) this.use("select");
    else if (this.scene.selected !== null && !this.single) this.select(null);
    else this.fit();
  }

  // --- changes

  /**
   * Give an object another mask.
   * @param {Item} item
   * @param {Bitmap} bitmap
   * @param {string} tool
   */
  async change(item, bitmap, tool) {
    if (this.frozen) return;
    if (!bitmap.width) {
      if (this.single) this.say("Nothing would be left of the object.");
      else if (await this.page.confirm(`Nothing would be left of this ${item.category}. Delete it?`)) this.remove(item);
      return;
    }
    const before = item.mask;
    const changed = this.scene.setMask(item, bitmap);
    if (!changed.width) {
      this.say("Nothing changed.");
      return;
    }
    this.repaint(changed);
    const change = this.describe(item, "edit", before, item.mask);
    this.record(change, {}, tool);
    this.say(`${item.category} now has ${item.area} pixels.`);
  }

  /**
   * Make an object, once it has a name.
   * @param {Bitmap} bitmap
   * @param {string} tool
   * @param {() => void} [refused] called when no name was given
   */
  async create(bitmap, tool, refused) {
    if (this.frozen) return;
    const present = this.single ? [...this.scene.items.values()][0] : undefined;
    if (present) {
      await this.change(present, union(present.bitmap, bitmap), tool);
      return;
    }
    const category = await this.page.askCategory(this.scene.current?.category ?? this.latestCategory());
    if (category === null) {
      refused?.();
      return;
    }
    const item = this.scene.add({ id: uuid(), category, mask: this.scene.encode(bitmap) });
    this.repaint(item.bitmap);
    this.record(this.describe(item, "create", null, item.mask), {}, tool);
    this.select(item.id);
    if (!this.single) this.use("edit");
  }

  latestCategory() {
    return this.history.done.findLast((change) => change.kind === "create")?.category ?? "";
  }

  deleteSelected() {
    const item = this.scene.current;
    if (item && !this.frozen && !this.single) this.remove(item);
  }

  /** @param {Item} item */
  remove(item) {
    const change = this.describe(item, "delete", item.mask, null);
    this.scene.remove(item.id);
    this.repaint(item.bitmap);
    this.record(change, {}, "delete");
    this.say(`${item.category} is deleted.`);
  }

  async rename() {
    const item = this.scene.current;
    if (!item || this.frozen || this.single) return;
    const name = await this.page.askCategory(item.category);
    if (name === null || name === item.category) return;
    const change = { ...this.describe(item, "rename", null, null), categoryAfter: name };
    item.category = name;
    this.record(change, {}, "rename");
  }

  /**
   * @param {Item} item
   * @param {Change["kind"]} kind
   * @param {Change["before"]} before
   * @param {Change["after"]} after
   * @returns {Change}
   */
  describe(item, kind, before, after) {
    return { object: item.id, kind, before, after, category: item.category, categoryAfter: item.category, seq: null, clientNo: null };
  }

  /**
   * @param {Change} change
   * @param {Reference} reference
   * @param {string} tool
   */
  record(change, reference, tool) {
    if (!reference.undoes && !reference.redoes) this.history.push(change);
    const seconds = (performance.now() - this.since) / 1000;
    this.since = performance.now();
    this.page.changed(change, reference, tool, seconds);
    this.page.shown();
  }

  undo() {
    if (this.tool.undo()) return;
    const step = this.frozen ? null : this.history.undo();
    if (!step) this.say("There is nothing to undo.");
    else this.replay(step.change, { undoes: step.undoes }, "undo");
  }

  redo() {
    if (this.tool.cancel()) return;
    const step = this.frozen ? null : this.history.redo();
    if (!step) this.say("There is nothing to redo.");
    else this.replay(step.change, { redoes: step.redoes }, "redo");
  }

  /**
   * @param {Change} change
   * @param {Reference} reference
   * @param {string} tool
   */
  replay(change, reference, tool) {
    this.apply(change);
    this.record(change, reference, tool);
    if (this.scene.item(change.object)) this.select(change.object);
    const words = { create: "made", restore: "brought back", delete: "deleted", edit: "changed", rename: "renamed" };
    this.say(`${tool === "undo" ? "Undone" : "Redone"}: ${change.categoryAfter || "object"} ${words[change.kind]}.`);
  }

  /** Make the objects what they are after a change. @param {Change} change */
  apply({ object, kind, after, categoryAfter }) {
    const item = this.scene.item(object);
    if (kind === "rename" && item) item.category = categoryAfter;
    else if (kind === "delete") {
      this.scene.remove(object);
      if (item) this.repaint(item.bitmap);
    } else if (after && item) this.repaint(this.scene.setMask(item, fromRle(after), after));
    else if (after) this.repaint(this.scene.add({ id: object, category: categoryAfter, mask: after }).bitmap);
    this.refresh();
  }

  /**
   * Make an object what the server says, whatever was done here; null: it is deleted.
   * @param {string} id
   * @param {Given | null} present
   */
  takeOver(id, present) {
    this.tool.cancel();
    this.history.forget(id);
    const kind = present ? "edit" : "delete";
    const category = present?.category ?? "";
    this.apply({ object: id, kind, before: null, after: present?.mask ?? null, category, categoryAfter: category, seq: null, clientNo: null });
    const item = this.scene.item(id);
    if (item && present) item.category = present.category;
    this.page.shown();
  }

  /** Change the selected object as a whole. @param {"fill" | "largest" | "grow" | "shrink"} how */
  reshape(how) {
    const item = this.scene.current;
    if (!item) {
      this.say("Select an object first.");
      return;
    }
    const { width, height } = this.scene;
    const { bitmap } = item;
    if (how === "fill") this.change(item, fillHoles(bitmap), "fill holes");
    else if (how === "largest") this.change(item, largestPart(bitmap), "largest part");
    else if (how === "grow") this.change(item, grow(bitmap, width, height), "grow");
    else this.change(item, shrink(bitmap, width, height), "shrink");
  }

  // --- what is seen

  /** @param {number} dx @param {number} dy */
  pan(dx, dy) {
    this.view.pan(dx, dy);
    this.moved();
  }

  /** @param {number} factor @param {number} [sx] @param {number} [sy] */
  zoom(factor, sx, sy) {
    this.view.zoomAt(factor, sx, sy);
    this.moved();
  }

  fit() {
    this.view.fit();
    this.moved();
  }

  focus() {
    const item = this.scene.current;
    if (item) this.view.focus(item.bitmap);
    this.moved();
  }

  moved() {
    this.stage.refresh();
    this.pointer.moveCursor();
    this.page.shown();
  }

  /** @param {boolean} hidden */
  hide(hidden) {
    this.stage.hidden = hidden;
    this.stage.refresh("masks", "overlay");
    this.page.shown();
  }

  /** @param {number} brightness 1 shows the image as it is */
  setBrightness(brightness) {
    this.brightness = Math.round(Math.min(Math.max(brightness, 0.4), 3) * 10) / 10;
    this.stage.image.canvas.style.filter = this.brightness === 1 ? "" : `brightness(${this.brightness})`;
    this.page.shown();
  }

  invert() {
    this.stage.style.invert = !this.stage.style.invert;
    this.stage.repaint();
    this.page.shown();
  }

  recolour() {
    this.stage.style.turn += 1;
    this.stage.repaint();
    this.page.shown();
  }

  /** @param {string} id */
  colourOf(id) {
    return cssColour((this.scene.item(id)?.colour ?? 0) + this.stage.style.turn);
  }

  /** @param {import("../geometry/mask.js").Box} box */
  repaint(box) {
    this.stage.repaint(hull(box, box));
    this.refresh();
  }

  refresh() {
    this.stage.refresh("overlay");
  }

  /** @param {string} text */
  say(text) {
    if (text) this.page.say(text);
  }

  /** @param {number | null} size of the brush */
  showSize(size) {
    this.size = size;
    this.page.shown();
  }

  moveCursor() {
    this.pointer.moveCursor();
  }

  /** @param {import("./pen.js").Pen} pen */
  draw(pen) {
    drawOutlines(this, pen);
    this.tool.draw(pen);
    this.cross.draw(pen);
  }
}
