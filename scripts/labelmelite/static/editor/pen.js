// @ts-check
/** Draws lines of image coordinates on the overlay, and remembers where, so that only that is cleared next time. */

/** @typedef {import("./view.js").View} View */

/**
 * @typedef {object} Line
 * @property {string} colour
 * @property {number} [width] in screen pixels
 * @property {number[]} [dash]
 * @property {boolean} [closed]
 * @property {string} [halo] a wider line below it, so that it shows on any ground
 */

export class Pen {
  /** @param {CanvasRenderingContext2D} context @param {View} view */
  constructor(context, view) {
    this.context = context;
    this.view = view;
    this.left = this.top = Infinity;
    this.right = this.bottom = -Infinity;
  }

  reset() {
    this.left = this.top = Infinity;
    this.right = this.bottom = -Infinity;
  }

  /** Clear what was drawn since the last time. */
  clear() {
    if (this.right >= this.left) this.context.clearRect(this.left, this.top, this.right - this.left, this.bottom - this.top);
    this.reset();
  }

  /** @param {number} left @param {number} top @param {number} right @param {number} bottom in screen pixels */
  mark(left, top, right, bottom) {
    this.left = Math.min(this.left, Math.floor(left));
    this.top = Math.min(this.top, Math.floor(top));
    this.right = Math.max(this.right, Math.ceil(right));
    this.bottom = Math.max(this.bottom, Math.ceil(bottom));
  }

  /**
   * @param {ArrayLike<number>} points x0, y0, x1, y1, ... in the image
   * @param {Line} line
   */
  line(points, { colour, width = 2, dash = [], closed = false, halo }) {
    if (points.length < 2) return;
    const { context } = this;
    context.beginPath();
    this.path(points, width + (halo ? 3 : 0));
    if (closed) context.closePath();
    context.lineJoin = "round";
    context.lineCap = dash.length ? "butt" : "round";
    if (halo) {
      context.setLineDash([]);
      context.strokeStyle = halo;
      context.lineWidth = width + 2;
      context.stroke();
    }
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
    context.setLineDash([]);
  }

  /**
   * Add the points to the path; those that make no difference on the screen are left out.
   * @param {ArrayLike<number>} points
   * @param {number} width
   */
  path(points, width) {
    const { zoom, left, top } = this.view;
    const { context } = this;
    const last = points.length - 2;
    let beforeX = (points[0] - left) * zoom;
    let beforeY = (points[1] - top) * zoom;
    let [lowX, highX, lowY, highY] = [beforeX, beforeX, beforeY, beforeY];
    context.moveTo(beforeX, beforeY);
    let beforeSide = this.side(beforeX, beforeY, width);
    let skipped = false;
    let [x, y] = [beforeX, beforeY];
    for (let place = 2; place <= last; place += 2) {
      const [farX, farY] = [x, y];
      x = (points[place] - left) * zoom;
      y = (points[place + 1] - top) * zoom;
      if (place < last && Math.abs(x - beforeX) < 1 && Math.abs(y - beforeY) < 1) continue;
      const side = this.side(x, y, width);
      if (place < last && side & beforeSide) {
        skipped = true;
        continue;
      }
      // A run beyond one border is drawn as one line to its end, which lies beyond that border too.
      if (skipped) context.lineTo(farX, farY);
      skipped = false;
      context.lineTo(x, y);
      beforeX = x;
      beforeY = y;
      beforeSide = side;
      if (x < lowX) lowX = x;
      else if (x > highX) highX = x;
      if (y < lowY) lowY = y;
      else if (y > highY) highY = y;
    }
    this.mark(lowX - width, lowY - width, highX + width, highY + width);
  }

  /** Beyond which borders of the window a line of this width lies here, a bit for each. @param {number} x @param {number} y @param {number} width */
  side(x, y, width) {
    const across = x < -width ? 1 : x > this.view.width + width ? 2 : 0;
    return across | (y < -width ? 4 : y > this.view.height + width ? 8 : 0);
  }

  /**
   * A round mark.
   * @param {number} x
   * @param {number} y
   * @param {{radius?: number, fill: string, line?: string}} style
   */
  dot(x, y, { radius = 5, fill, line = "#000000" }) {
    const [sx, sy] = this.view.toScreen(x, y);
    const { context } = this;
    context.beginPath();
    context.arc(sx, sy, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = line;
    context.stroke();
    this.mark(sx - radius - 2, sy - radius - 2, sx + radius + 2, sy + radius + 2);
  }
}
