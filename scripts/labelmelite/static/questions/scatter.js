// @ts-check
/** Points on a plane: where they stand on screen, which lie in a lasso, which is nearest. No DOM. */

/** @typedef {{x: number, y: number}} Point */

/** A view of the plane: screen = (plane - origin) * scale. */
export class View {
  /**
   * @param {ArrayLike<number>} x
   * @param {ArrayLike<number>} y
   */
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.scale = 1;
    this.left = 0;
    this.top = 0;
  }

  /**
   * Show all points with a margin.
   * @param {number} width
   * @param {number} height
   * @param {number=} margin
   */
  fit(width, height, margin = 30) {
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let place = 0; place < this.x.length; place += 1) {
      x0 = Math.min(x0, this.x[place]);
      x1 = Math.max(x1, this.x[place]);
      y0 = Math.min(y0, this.y[place]);
      y1 = Math.max(y1, this.y[place]);
    }
    if (x0 > x1) return;
    this.scale = Math.min((width - 2 * margin) / Math.max(x1 - x0, 1e-9), (height - 2 * margin) / Math.max(y1 - y0, 1e-9));
    this.left = (x0 + x1) / 2 - width / 2 / this.scale;
    this.top = (y0 + y1) / 2 - height / 2 / this.scale;
  }

  /**
   * Where a point stands on screen.
   * @param {number} place
   * @returns {Point}
   */
  at(place) {
    return { x: (this.x[place] - this.left) * this.scale, y: (this.y[place] - this.top) * this.scale };
  }

  /**
   * Zoom so that what is under a screen point stays there.
   * @param {Point} centre
   * @param {number} factor
   */
  zoom(centre, factor) {
    this.left += centre.x / this.scale - centre.x / (this.scale * factor);
    this.top += centre.y / this.scale - centre.y / (this.scale * factor);
    this.scale *= factor;
  }

  /**
   * @param {number} dx  Screen pixels.
   * @param {number} dy
   */
  move(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
  }

  /**
   * Return the point nearest to a screen point within so many pixels, or -1.
   * @param {Point} where
   * @param {number} reach
   */
  nearest(where, reach) {
    let best = -1;
    let least = reach * reach;
    for (let place = 0; place < this.x.length; place += 1) {
      const { x, y } = this.at(place);
      const distance = (x - where.x) ** 2 + (y - where.y) ** 2;
      if (distance <= least) {
        best = place;
        least = distance;
      }
    }
    return best;
  }

  /**
   * Return the points inside a closed line on screen, by the even-odd rule.
   * @param {Point[]} line
   * @returns {number[]}
   */
  inside(line) {
    /** @type {number[]} */
    const found = [];
    if (line.length < 3) return found;
    for (let place = 0; place < this.x.length; place += 1) if (contains(line, this.at(place))) found.push(place);
    return found;
  }
}

/**
 * Return whether a point lies inside a closed line, by the even-odd rule.
 * @param {Point[]} line
 * @param {Point} point
 */
export function contains(line, { x, y }) {
  let inside = false;
  for (let place = 0, before = line.length - 1; place < line.length; before = place, place += 1) {
    const a = line[place];
    const b = line[before];
    if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) inside = !inside;
  }
  return inside;
}
