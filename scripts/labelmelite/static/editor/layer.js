// @ts-check
/**
 * Pixels over the image, at the image's resolution: all masks in one picture, so that panning and zooming draw one picture
 * and not hundreds. A change repaints its box alone.
 */

import { overlap } from "../geometry/mask.js";
import { edgeColour, tint } from "./colours.js";

/** @typedef {import("../geometry/mask.js").Bitmap} Bitmap */
/** @typedef {import("../geometry/mask.js").Box} Box */
/** @typedef {import("./scene.js").Scene} Scene */

/** Above this number of pixels a layer holds every second or third pixel only. */
const MOST_PIXELS = 24e6;

/** Dims what is no mask, as a colour of a little-endian pixel: alpha, blue, green, red. */
const DIM = 0xb4000000;

export class Layer {
  /** @param {number} width @param {number} height of the image */
  constructor(width, height) {
    this.step = Math.max(1, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));
    this.canvas = document.createElement("canvas");
    this.canvas.width = Math.ceil(width / this.step);
    this.canvas.height = Math.ceil(height / this.step);
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.image = { x: 0, y: 0, width, height };
  }

  /**
   * Paint a box anew.
   * @param {Box} box in image pixels
   * @param {(pixels: Uint32Array, box: Box) => void} paint gets the pixels of the box, row by row, empty; at step 1 the box is
   *   that of the image, otherwise in steps
   */
  paint(box, paint) {
    const inside = overlap(box, this.image);
    if (!inside.width || !inside.height) return;
    const x = Math.floor(inside.x / this.step);
    const y = Math.floor(inside.y / this.step);
    const width = Math.ceil((inside.x + inside.width) / this.step) - x;
    const height = Math.ceil((inside.y + inside.height) / this.step) - y;
    const data = new ImageData(width, height);
    paint(new Uint32Array(data.data.buffer), { x, y, width, height });
    this.context.putImageData(data, x, y);
  }

  /**
   * Draw what is visible onto a canvas.
   * @param {CanvasRenderingContext2D} context
   * @param {import("./view.js").View} view
   * @param {Box} [box] part in image pixels
   */
  draw(context, view, box = this.image) {
    const seen = { x: view.left, y: view.top, width: view.width / view.zoom, height: view.height / view.zoom };
    const part = overlap(overlap(box, this.image), seen);
    if (part.width <= 0 || part.height <= 0) return;
    // Whole pixels, so that they do not shift when only a part of them is drawn.
    const x = Math.floor(part.x / this.step);
    const y = Math.floor(part.y / this.step);
    const width = Math.min(Math.ceil((part.x + part.width) / this.step), this.canvas.width) - x;
    const height = Math.min(Math.ceil((part.y + part.height) / this.step), this.canvas.height) - y;
    const [left, top] = view.toScreen(x * this.step, y * this.step);
    context.imageSmoothingEnabled = view.zoom * this.step < 1;
    context.drawImage(this.canvas, x, y, width, height, left, top, width * this.step * view.zoom, height * this.step * view.zoom);
  }
}

/**
 * Paint the masks of a box: tinted, with the pixels along their edge marked unless lines are drawn there instead; or,
 * inverted, clear in a dimmed image. The smallest object is on top, as a click finds it.
 * @param {Layer} layer
 * @param {Scene} scene
 * @param {Box} box in image pixels
 * @param {{invert: boolean, turn: number, lines: boolean}} style
 */
export function paintMasks(layer, scene, box, { invert, turn, lines }) {
  // The line along an edge depends on the neighbours.
  const wide = { x: box.x - layer.step, y: box.y - layer.step, width: box.width + 2 * layer.step, height: box.height + 2 * layer.step };
  layer.paint(wide, (pixels, part) => {
    if (invert) pixels.fill(DIM);
    for (let place = scene.order.length - 1; place >= 0; place--) {
      const item = scene.order[place];
      const colour = item.colour + turn;
      const inside = invert ? 0x01000000 : tint(colour);
      paintBitmap(pixels, part, item.bitmap, layer.step, inside, lines ? inside : edgeColour(colour));
    }
  });
}

/**
 * @param {Uint32Array} pixels
 * @param {Box} part in steps
 * @param {Bitmap} bitmap
 * @param {number} step
 * @param {number} inside
 * @param {number} edge
 */
export function paintBitmap(pixels, part, { x, y, width, height, data }, step, inside, edge) {
  const top = Math.max(part.y, Math.ceil(y / step));
  const bottom = Math.min(part.y + part.height, Math.ceil((y + height) / step));
  const left = Math.max(part.x, Math.ceil(x / step));
  const right = Math.min(part.x + part.width, Math.ceil((x + width) / step));
  for (let row = top; row < bottom; row++) {
    const own = row * step - y;
    const start = own * width - x;
    const to = (row - part.y) * part.width - part.x;
    for (let column = left; column < right; column++) {
      const place = start + column * step;
      if (!data[place]) continue;
      const across = column * step - x;
      const within =
        across > 0 && across < width - 1 && own > 0 && own < height - 1 &&
        data[place - 1] && data[place + 1] && data[place - width] && data[place + width];
      pixels[to + column] = within ? inside : edge;
    }
  }
}
