/**
 * Edges of the image, and contours that snap to them.
 *
 * Edges are Canny's (A computational approach to edge detection, PAMI 1986) on the brightness. Snapping finds the cheapest
 * closed path in a band of three pixels to each side of a contour; the path moves by at most one pixel sideways for each
 * pixel along, so it cannot fold as contours do whose corners jump one by one.
 */

/** @typedef {{width: number, height: number, strength: Float32Array, edge: Uint8Array}} Edges strength: size of the gradient */

/** How far a contour may move, in pixels to each side. */
export const BAND = 3;

/**
 * Brightness of an image, 0 to 255 (ITU-R BT.601).
 * @param {ArrayLike<number>} rgba four values a pixel
 * @returns {Float32Array}
 */
export function brightness(rgba) {
  const grey = new Float32Array(rgba.length / 4);
  for (let place = 0; place < grey.length; place++) {
    grey[place] = 0.299 * rgba[4 * place] + 0.587 * rgba[4 * place + 1] + 0.114 * rgba[4 * place + 2];
  }
  return grey;
}

/**
 * Canny's edges: Sobel gradients in the sum norm, thinned across the edge, kept where they are strong or joined to strong ones.
 * @param {ArrayLike<number>} grey height x width values 0 to 255
 * @param {number} width
 * @param {number} height
 * @param {number} [low] gradient of an edge that is joined to a strong one
 * @param {number} [high] gradient of a strong edge
 * @returns {Edges}
 */
export function canny(grey, width, height, low = 50, high = 100) {
  const strength = new Float32Array(width * height);
  /** 0 level, 1 falling diagonal, 2 upright, 3 rising diagonal: the direction across the edge. */
  const across = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const above = (y > 0 ? y - 1 : 0) * width;
    const here = y * width;
    const below = (y < height - 1 ? y + 1 : y) * width;
    for (let x = 0; x < width; x++) {
      const left = x > 0 ? x - 1 : 0;
      const right = x < width - 1 ? x + 1 : x;
      const gx =
        grey[above + right] + 2 * grey[here + right] + grey[below + right] -
        (grey[above + left] + 2 * grey[here + left] + grey[below + left]);
      const gy =
        grey[below + left] + 2 * grey[below + x] + grey[below + right] -
        (grey[above + left] + 2 * grey[above + x] + grey[above + right]);
      strength[here + x] = Math.abs(gx) + Math.abs(gy);
      across[here + x] = sector(gx, gy);
    }
  }
  return { width, height, strength, edge: connect(thin(strength, across, width, height, low), strength, width, height, high) };
}

/** Tangent of 22.5 degrees: where one of the eight directions ends and the next begins. */
const TANGENT = Math.SQRT2 - 1;

/**
 * @param {number} gx
 * @param {number} gy
 * @returns {number}
 */
function sector(gx, gy) {
  const ax = Math.abs(gx);
  const ay = Math.abs(gy);
  if (ay <= TANGENT * ax) return 0;
  if (ax <= TANGENT * ay) return 2;
  return gx > 0 === gy > 0 ? 1 : 3;
}

/**
 * Pixels whose gradient is above `low` and the largest across the edge.
 * @param {Float32Array} strength
 * @param {Uint8Array} across
 * @param {number} width
 * @param {number} height
 * @param {number} low
 * @returns {Uint8Array}
 */
function thin(strength, across, width, height, low) {
  const thinned = new Uint8Array(width * height);
  const dx = [1, 1, 0, 1];
  const dy = [0, 1, 1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const place = y * width + x;
      const here = strength[place];
      if (here <= low) continue;
      const direction = across[place];
      const [ax, ay, bx, by] = [x - dx[direction], y - dy[direction], x + dx[direction], y + dy[direction]];
      const before = ax >= 0 && ay >= 0 && ay < height ? strength[ay * width + ax] : 0;
      const after = bx < width && by >= 0 && by < height ? strength[by * width + bx] : 0;
      // Of two equal neighbours the first is kept.
      if (here > before && here >= after) thinned[place] = 1;
    }
  }
  return thinned;
}

/**
 * Keep thinned pixels that are strong, or joined to strong ones by neighbours in eight directions.
 * @param {Uint8Array} thinned
 * @param {Float32Array} strength
 * @param {number} width
 * @param {number} height
 * @param {number} high
 * @returns {Uint8Array}
 */
function connect(thinned, strength, width, height, high) {
  const kept = new Uint8Array(thinned.length);
  /** @type {number[]} */
  const stack = [];
  for (let place = 0; place < thinned.length; place++) {
    if (!thinned[place] || strength[place] <= high || kept[place]) continue;
    kept[place] = 1;
    stack.push(place);
    while (stack.length) {
      const from = /** @type {number} */ (stack.pop());
      const x = from % width;
      const y = (from - x) / width;
      for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
        for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
          const next = ny * width + nx;
          if (!thinned[next] || kept[next]) continue;
          kept[next] = 1;
          stack.push(next);
        }
      }
    }
  }
  return kept;
}

/**
 * A contour moved to the edges of the image.
 * @param {ArrayLike<number>} corners of a pixel-edge contour: x0, y0, x1, y1, ... in the image
 * @param {Edges} edges of a part of the image
 * @param {{x: number, y: number, imageWidth: number, imageHeight: number}} where the part's place, and the size of the image
 * @returns {Float64Array} a polygon with a corner for each pixel along the contour
 */
export function snap(corners, edges, { x, y, imageWidth, imageHeight }) {
  const steps = everyPixel(corners);
  const count = steps.length / 2;
  if (count < 8) return Float64Array.from(corners);
  const smooth = smoothed(steps, 3);
  const lanes = 2 * BAND + 1;
  const placesX = new Float64Array(count * lanes);
  const placesY = new Float64Array(count * lanes);
  const costs = new Float64Array(count * lanes);
  for (let step = 0; step < count; step++) {
    const [nx, ny] = normal(smooth, step);
    const px = steps[2 * step];
    const py = steps[2 * step + 1];
    // On the edge of the image there is nothing beyond; the contour stays.
    const fixed = px === 0 || py === 0 || px === imageWidth || py === imageHeight;
    for (let lane = 0; lane < lanes; lane++) {
      const place = step * lanes + lane;
      const offset = lane - BAND;
      const baseX = fixed ? px : smooth[2 * step];
      const baseY = fixed ? py : smooth[2 * step + 1];
      placesX[place] = Math.min(Math.max(baseX + offset * nx, 0), imageWidth);
      placesY[place] = Math.min(Math.max(baseY + offset * ny, 0), imageHeight);
      costs[place] = fixed ? (offset ? 10 : 0) : cost(edges, placesX[place] - x, placesY[place] - y) + 0.01 * Math.abs(offset);
    }
  }
  const path = cheapestClosedPath(costs, count, lanes);
  const result = new Float64Array(2 * count);
  for (let step = 0; step < count; step++) {
    result[2 * step] = placesX[step * lanes + path[step]];
    result[2 * step + 1] = placesY[step * lanes + path[step]];
  }
  return result;
}

/**
 * Zero on the strongest edges, one where there is none; half as far from it when Canny kept no edge nearby.
 * @param {Edges} edges
 * @param {number} x a corner: pixel centres lie half a pixel beside it
 * @param {number} y
 * @returns {number}
 */
function cost({ width, height, strength, edge }, x, y) {
  const column = Math.min(Math.max(x - 0.5, 0), width - 1);
  const row = Math.min(Math.max(y - 0.5, 0), height - 1);
  const left = Math.min(Math.floor(column), Math.max(0, width - 2));
  const top = Math.min(Math.floor(row), Math.max(0, height - 2));
  const right = Math.min(left + 1, width - 1);
  const bottom = Math.min(top + 1, height - 1);
  const [u, v] = [column - left, row - top];
  const [a, b, c, d] = [top * width + left, top * width + right, bottom * width + left, bottom * width + right];
  const mean = (1 - v) * ((1 - u) * strength[a] + u * strength[b]) + v * ((1 - u) * strength[c] + u * strength[d]);
  const kept = edge[a] || edge[b] || edge[c] || edge[d];
  return 1 - (Math.min(mean, STRONGEST) / STRONGEST) * (kept ? 1 : 0.5);
}

/** Gradients above this are edges like any other. */
const STRONGEST = 600;

/**
 * The cheapest path that takes one lane at each step, changes by at most one lane, and ends where it began.
 * @param {Float64Array} costs steps x lanes
 * @param {number} count steps
 * @param {number} lanes
 * @returns {Uint8Array} the lane of each step
 */
export function cheapestClosedPath(costs, count, lanes) {
  let best = Infinity;
  /** @type {Uint8Array} */
  let path = new Uint8Array(count);
  const from = new Uint8Array(count * lanes);
  for (let first = 0; first < lanes; first++) {
    let sums = new Float64Array(lanes).fill(Infinity);
    sums[first] = costs[first];
    for (let step = 1; step < count; step++) {
      const next = new Float64Array(lanes).fill(Infinity);
      for (let lane = 0; lane < lanes; lane++) {
        for (let before = Math.max(0, lane - 1); before <= Math.min(lanes - 1, lane + 1); before++) {
          const sum = sums[before] + costs[step * lanes + lane] + (before === lane ? 0 : CHANGE);
          if (sum >= next[lane]) continue;
          next[lane] = sum;
          from[step * lanes + lane] = before;
        }
      }
      sums = next;
    }
    for (let last = Math.max(0, first - 1); last <= Math.min(lanes - 1, first + 1); last++) {
      const sum = sums[last] + (last === first ? 0 : CHANGE);
      if (sum >= best) continue;
      best = sum;
      path = new Uint8Array(count);
      path[count - 1] = last;
      for (let step = count - 1; step > 0; step--) path[step - 1] = from[step * lanes + path[step]];
    }
  }
  return path;
}

/** Price of a step sideways, against a path that shivers where edges are weak. */
const CHANGE = 0.15;

/**
 * A corner for each pixel along a contour of level and upright edges.
 * @param {ArrayLike<number>} corners
 * @returns {Float64Array}
 */
function everyPixel(corners) {
  /** @type {number[]} */
  const steps = [];
  for (let place = 0; place < corners.length; place += 2) {
    const next = (place + 2) % corners.length;
    const dx = Math.sign(corners[next] - corners[place]);
    const dy = Math.sign(corners[next + 1] - corners[place + 1]);
    const length = Math.abs(corners[next] - corners[place]) + Math.abs(corners[next + 1] - corners[place + 1]);
    for (let step = 0; step < length; step++) steps.push(corners[place] + step * dx, corners[place + 1] + step * dy);
  }
  return Float64Array.from(steps);
}

/**
 * The mean of each point and its neighbours along the contour, which takes the stairs out of it.
 * @param {Float64Array} steps
 * @param {number} reach
 * @returns {Float64Array}
 */
function smoothed(steps, reach) {
  const count = steps.length / 2;
  const result = new Float64Array(steps.length);
  for (let step = 0; step < count; step++) {
    for (let offset = -reach; offset <= reach; offset++) {
      const other = (step + offset + count) % count;
      result[2 * step] += steps[2 * other] / (2 * reach + 1);
      result[2 * step + 1] += steps[2 * other + 1] / (2 * reach + 1);
    }
  }
  return result;
}

/**
 * Unit vector across the contour.
 * @param {Float64Array} smooth
 * @param {number} step
 * @returns {[number, number]}
 */
function normal(smooth, step) {
  const count = smooth.length / 2;
  const before = (step - 2 + count) % count;
  const after = (step + 2) % count;
  const dx = smooth[2 * after] - smooth[2 * before];
  const dy = smooth[2 * after + 1] - smooth[2 * before + 1];
  const length = Math.hypot(dx, dy) || 1;
  return [-dy / length, dx / length];
}
