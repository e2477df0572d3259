// @ts-check
/** Which part of the image is on the screen, and how large. Pure: no DOM. */

/** Smallest zoom, as a share of the one that fits the image. */
const LEAST = 0.75;
/** Largest zoom, as a share of the one that fits, or in screen pixels per image pixel where that is more. */
const MOST = 12;
const MOST_PIXELS = 24;
/** Largest zoom when an object is centred. */
const FOCUS = 5;
const FOCUS_PIXELS = 8;

export class View {
  constructor() {
    this.imageWidth = 1;
    this.imageHeight = 1;
    this.width = 1;
    this.height = 1;
    /** Screen pixels per image pixel. */
    this.zoom = 1;
    /** The place in the image at the screen's left upper corner. */
    this.left = 0;
    this.top = 0;
  }

  /** @param {number} imageWidth @param {number} imageHeight */
  setImage(imageWidth, imageHeight) {
    this.imageWidth = imageWidth;
    this.imageHeight = imageHeight;
    this.fit();
  }

  /**
   * Another size of the window; what is in the middle stays there, and a fitted image stays fitted.
   * @param {number} width
   * @param {number} height
   */
  resize(width, height) {
    const fitted = Math.abs(this.zoom / this.fitZoom - 1) < 1e-6;
    const x = this.left + this.width / this.zoom / 2;
    const y = this.top + this.height / this.zoom / 2;
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    if (fitted) this.fit();
    else this.centre(x, y, this.zoom);
  }

  get fitZoom() {
    return Math.min(this.width / this.imageWidth, this.height / this.imageHeight);
  }

  get mostZoom() {
    return Math.max(MOST * this.fitZoom, MOST_PIXELS);
  }

  fit() {
    this.centre(this.imageWidth / 2, this.imageHeight / 2, this.fitZoom);
  }

  /**
   * Centre a box so that twice its size is seen.
   * @param {{x: number, y: number, width: number, height: number}} box
   */
  focus({ x, y, width, height }) {
    const wanted = Math.min(this.width / (2 * width), this.height / (2 * height));
    const most = Math.max(FOCUS * this.fitZoom, FOCUS_PIXELS);
    this.centre(x + width / 2, y + height / 2, Math.min(Math.max(wanted, this.fitZoom), most));
  }

  /** @param {number} x @param {number} y @param {number} zoom */
  centre(x, y, zoom) {
    this.zoom = Math.min(Math.max(zoom, LEAST * this.fitZoom), this.mostZoom);
    this.left = x - this.width / this.zoom / 2;
    this.top = y - this.height / this.zoom / 2;
    this.hold();
  }

  /**
   * Zoom about a place on the screen.
   * @param {number} factor
   * @param {number} [sx]
   * @param {number} [sy]
   */
  zoomAt(factor, sx = this.width / 2, sy = this.height / 2) {
    const [x, y] = this.toImage(sx, sy);
    this.zoom = Math.min(Math.max(this.zoom * factor, LEAST * this.fitZoom), this.mostZoom);
    this.left = x - sx / this.zoom;
    this.top = y - sy / this.zoom;
    this.hold();
  }

  /**
   * Move the image by screen pixels.
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    this.left -= dx / this.zoom;
    this.top -= dy / this.zoom;
    this.hold();
  }

  /** The middle of the screen stays over the image, so that it cannot be lost. */
  hold() {
    const halfX = this.width / this.zoom / 2;
    const halfY = this.height / this.zoom / 2;
    this.left = Math.min(Math.max(this.left, -halfX), this.imageWidth - halfX);
    this.top = Math.min(Math.max(this.top, -halfY), this.imageHeight - halfY);
  }

  /**
   * @param {number} sx
   * @param {number} sy
   * @returns {[number, number]}
   */
  toImage(sx, sy) {
    return [this.left + sx / this.zoom, this.top + sy / this.zoom];
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {[number, number]}
   */
  toScreen(x, y) {
    return [(x - this.left) * this.zoom, (y - this.top) * this.zoom];
  }

  /**
   * A box of the image as it lies on the screen, grown to whole pixels.
   * @param {{x: number, y: number, width: number, height: number}} box
   */
  boxToScreen({ x, y, width, height }) {
    const [left, top] = this.toScreen(x, y);
    const [right, bottom] = this.toScreen(x + width, y + height);
    return { x: Math.floor(left), y: Math.floor(top), width: Math.ceil(right) - Math.floor(left), height: Math.ceil(bottom) - Math.floor(top) };
  }
}
