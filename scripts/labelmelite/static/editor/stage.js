// @ts-check
/**
 * Three canvases one above the other: the image, all masks, and what a tool draws. A frame redraws only what changed.
 */

import { overlap } from "../geometry/mask.js";
import { cssColour } from "./colours.js";
import { Layer, paintMasks } from "./layer.js";
import { Pen } from "./pen.js";
import { Scene } from "./scene.js";
import { View } from "./view.js";

/** @typedef {import("../geometry/mask.js").Box} Box */

/** From this zoom on edges are lines. */
const LINES = 3;

export class Stage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.view = new View();
    this.scene = new Scene(1, 1);
    this.image = this.makeCanvas("image");
    this.masks = this.makeCanvas("masks");
    this.overlay = this.makeCanvas("overlay");
    this.pen = new Pen(this.overlay, this.view);
    /** @type {CanvasImageSource | null} */
    this.picture = null;
    this.layer = new Layer(1, 1);
    /** Edges of the image, when they are shown. @type {Layer | null} */
    this.edges = null;
    this.style = { invert: false, turn: 0, lines: false };
    this.hidden = false;
    this.ratio = 1;
    /** What the next frame redraws. */
    this.stale = { image: true, masks: true, overlay: true };
    /** Parts of the image whose masks changed while the rest of their canvas is right. @type {Box[]} */
    this.parts = [];
    this.frame = 0;
    /** Draws the overlay; set by the editor. @type {(pen: Pen) => void} */
    this.draw = () => {};
    /** Told at the end of each frame. @type {() => void} */
    this.drawn = () => {};
    new ResizeObserver(() => this.resize()).observe(root);
  }

  /** @param {string} name */
  makeCanvas(name) {
    const canvas = document.createElement("canvas");
    canvas.className = name;
    canvas.setAttribute("aria-hidden", "true");
    this.root.append(canvas);
    return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  }

  /**
   * Show another image.
   * @param {CanvasImageSource | null} picture
   * @param {Scene} scene
   */
  show(picture, scene) {
    this.picture = picture;
    this.scene = scene;
    this.edges = null;
    this.layer = new Layer(scene.width, scene.height);
    this.view.setImage(scene.width, scene.height);
    this.repaint();
    this.refresh();
  }

  /** Paint masks anew, all or those of a box. @param {Box} [box] */
  repaint(box = { x: 0, y: 0, width: this.scene.width, height: this.scene.height }) {
    paintMasks(this.layer, this.scene, box, this.style);
    this.parts.push(box);
    this.schedule();
  }

  resize() {
    const { clientWidth, clientHeight } = this.root;
    this.ratio = window.devicePixelRatio || 1;
    for (const { canvas } of [this.image, this.masks, this.overlay]) {
      canvas.width = Math.round(clientWidth * this.ratio);
      canvas.height = Math.round(clientHeight * this.ratio);
    }
    this.view.resize(clientWidth, clientHeight);
    this.pen.reset();
    // A resized canvas is empty; waiting for the next frame would show that.
    this.refresh();
    this.render();
  }

  /** Redraw with the next frame. @param {...("image" | "masks" | "overlay")} what everything if nothing is named */
  refresh(...what) {
    for (const one of what.length ? what : /** @type {const} */ (["image", "masks", "overlay"])) this.stale[one] = true;
    this.schedule();
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.render());
  }

  render() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.chooseEdges();
    const { stale } = this;
    if (stale.image) this.drawImage();
    if (stale.masks) this.drawMasks();
    else for (const part of this.parts) this.drawMasks(part);
    this.parts = [];
    if (stale.overlay || stale.image) this.drawOverlay();
    this.stale = { image: false, masks: false, overlay: false };
    this.drawn();
  }

  /** Far in, a marked pixel would hide what a person looks at: edges are then thin lines. */
  chooseEdges() {
    const lines = this.view.zoom >= LINES;
    if (lines === this.style.lines) return;
    this.style.lines = lines;
    paintMasks(this.layer, this.scene, this.layer.image, this.style);
    this.stale.masks = true;
  }

  drawImage() {
    const { image: context, view, picture } = this;
    this.wipe(context);
    if (!picture) return;
    const left = Math.max(0, Math.floor(view.left));
    const top = Math.max(0, Math.floor(view.top));
    const right = Math.min(view.imageWidth, Math.ceil(view.left + view.width / view.zoom));
    const bottom = Math.min(view.imageHeight, Math.ceil(view.top + view.height / view.zoom));
    if (right <= left || bottom <= top) return;
    const [x, y] = view.toScreen(left, top);
    // Far in, pixels are what a person works on, so they are shown as they are.
    context.imageSmoothingEnabled = view.zoom < 4;
    context.drawImage(picture, left, top, right - left, bottom - top, x, y, (right - left) * view.zoom, (bottom - top) * view.zoom);
  }

  /** @param {Box} [part] of the image; everything if it is missing */
  drawMasks(part) {
    const { masks: context, view } = this;
    context.save();
    if (part) {
      const margin = 2 * this.layer.step;
      const wide = { x: part.x - margin, y: part.y - margin, width: part.width + 2 * margin, height: part.height + 2 * margin };
      const { x, y, width, height } = view.boxToScreen(wide);
      context.beginPath();
      context.rect(x, y, width, height);
      context.clip();
      context.clearRect(x, y, width, height);
      part = { x: wide.x - margin, y: wide.y - margin, width: wide.width + 2 * margin, height: wide.height + 2 * margin };
    } else this.wipe(context);
    this.edges?.draw(context, view, part);
    if (!this.hidden) {
      this.layer.draw(context, view, part);
      if (this.style.lines) this.drawLines(context, part);
    }
    context.restore();
  }

  /**
   * The contours of what is in sight.
   * @param {CanvasRenderingContext2D} context
   * @param {Box} [part]
   */
  drawLines(context, part) {
    const { view, scene } = this;
    const seen = { x: view.left, y: view.top, width: view.width / view.zoom, height: view.height / view.zoom };
    const pen = new Pen(context, view);
    for (const item of scene.order) {
      const near = overlap(part ? overlap(item.bitmap, part) : item.bitmap, seen);
      if (near.width <= 0 || near.height <= 0) continue;
      for (const { points } of item.loops) pen.line(points, { colour: cssColour(item.colour + this.style.turn), width: 1.5, closed: true });
    }
  }

  drawOverlay() {
    this.overlay.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.pen.clear();
    this.draw(this.pen);
  }

  /** @param {CanvasRenderingContext2D} context */
  wipe(context) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
  }

  /**
   * The image's own pixels in a box.
   * @param {Box} box inside the image
   * @returns {Uint8ClampedArray | null} four values a pixel
   */
  pixels({ x, y, width, height }) {
    if (!this.picture) return null;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    context.drawImage(this.picture, x, y, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }
}
