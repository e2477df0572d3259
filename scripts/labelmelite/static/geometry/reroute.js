/**
 * Boundary reroute (thesis, section 4.2; here on pixel-edge contours): a trace replaces a part of one contour.
 *
 * The points of the contour nearest to the trace's two ends cut it into two routes. Each route with the trace is a polygon;
 * the one with more pixels is kept, or on request the other. A trace that ends nearer to its own start than to the contour is
 * a closed loop, a new part or a hole. `plan` is vector work for every frame of a drag, `apply` makes the pixels.
 */

import { nearest } from "./contour.js";
import { count, fill, fillWithin } from "./fill.js";
import { area, clip, difference, hull, intersection, over, stamp } from "./mask.js";

/** @typedef {import("./mask.js").Bitmap} Bitmap */
/** @typedef {import("./contour.js").Loop} Loop */

/** Within this many screen pixels of the trace's ends its crossing with the contour becomes the end. */
export const TRIM = 20;
/** An end at least this many screen pixels from the contour may close the trace on itself. */
export const APART = 20;

/**
 * What a trace would do.
 * @typedef {object} Plan
 * @property {boolean} closed the trace is a loop of its own
 * @property {Float64Array} trace clipped to the image, trimmed, with its ends on the contour unless closed
 * @property {Float64Array} kept route of the contour that stays, from the trace's end back to its start; empty if closed
 * @property {Float64Array} dropped route that goes, in the same direction; empty if closed
 * @property {Float64Array} polygon what is filled: kept route and trace
 * @property {boolean} swapped the other choice than the one that the rule makes
 */

/**
 * @param {Loop} loop the locked contour
 * @param {ArrayLike<number>} drawn the trace x0, y0, x1, y1, ... in image coordinates, at least one point
 * @param {{zoom: number, width: number, height: number, swap?: boolean}} options zoom in screen pixels per image pixel, size
 *   of the image, and whether to keep the other route
 * @returns {Plan}
 */
export function plan(loop, drawn, { zoom, width, height, swap = false }) {
  const trace = trimEnds(loop.points, hold(drawn, width, height), TRIM / zoom);
  const count = trace.length;
  const start = nearest(loop.points, trace[0], trace[1]);
  const end = nearest(loop.points, trace[count - 2], trace[count - 1]);
  const apart = Math.hypot(trace[count - 2] - trace[0], trace[count - 1] - trace[1]);
  const none = new Float64Array(0);
  if (end.distance >= APART / zoom && apart <= end.distance) {
    return { closed: true, trace, kept: none, dropped: none, polygon: trace, swapped: swap };
  }
  const snapped = Float64Array.from([start.x, start.y, ...trace, end.x, end.y]);
  const [ahead, back] = routes(loop.points, start, end);
  const withAhead = joined(snapped, ahead);
  const withBack = joined(snapped, back);
  const aheadWins = larger(withAhead, ahead, withBack, back) !== swap;
  return {
    closed: false,
    trace: snapped,
    kept: aheadWins ? ahead : back,
    dropped: aheadWins ? back : ahead,
    polygon: aheadWins ? withAhead : withBack,
    swapped: swap,
  };
}

/**
 * The mask after a planned reroute, inside the image; empty when nothing would be left.
 * @param {Bitmap} mask
 * @param {Loop} loop the contour that the plan was made for
 * @param {Plan} planned
 * @param {{width: number, height: number}} image
 * @returns {Bitmap}
 */
export function apply(mask, loop, planned, { width, height }) {
  if (!planned.closed) return replaceLoop(mask, loop, planned.polygon, { width, height });
  const inside = fill(planned.polygon);
  const outside = difference(inside, mask);
  const mostlyMask = 2 * area(outside) < area(inside);
  if (mostlyMask !== planned.swapped) return difference(mask, inside);
  const result = over(mask, hull(mask, inside));
  stamp(result, inside, "set");
  return clip(result, width, height);
}

/**
 * The mask when a contour is replaced by a polygon: what the polygon gains and what it drops changes, nothing else. So holes
 * in the kept area stay, holes in the dropped area go with it, and other parts stay.
 * @param {Bitmap} mask
 * @param {Loop} loop
 * @param {ArrayLike<number>} polygon
 * @param {{width: number, height: number}} image
 * @returns {Bitmap}
 */
export function replaceLoop(mask, loop, polygon, { width, height }) {
  // Both outlines together enclose what differs; the route that both share cancels, so the work is that of the change.
  const changes = fill(polygon, loop.points);
  if (!changes.width) return mask;
  const before = fillWithin(loop.points, changes);
  const result = over(mask, hull(mask, changes));
  stamp(result, difference(changes, before), loop.outer ? "set" : "clear");
  stamp(result, intersection(changes, before), loop.outer ? "clear" : "set");
  return clip(result, width, height);
}

/**
 * The mask without one contour: a part goes with its holes left to other loops, a hole is filled.
 * @param {Bitmap} mask
 * @param {Loop} loop
 * @returns {Bitmap}
 */
export function removeLoop(mask, loop) {
  const inside = fill(loop.points);
  if (!loop.outer) {
    const result = over(mask, hull(mask, inside));
    stamp(result, inside, "set");
    return result;
  }
  return difference(mask, inside);
}

/**
 * The two routes of a closed contour from `end` back to `start`: along its direction, and against it.
 * @param {ArrayLike<number>} points
 * @param {import("./contour.js").Near} start
 * @param {import("./contour.js").Near} end
 * @returns {[Float64Array, Float64Array]}
 */
function routes(points, start, end) {
  const same = start.edge === end.edge && start.x === end.x && start.y === end.y;
  // With both ends at one point one route is empty and the other the whole contour.
  return [between(points, end, start, false), reversed(between(points, start, end, same))];
}

/**
 * The route along the direction of the contour; the whole way round if `to` lies before `from` on the same edge.
 * @param {ArrayLike<number>} points
 * @param {import("./contour.js").Near} from
 * @param {import("./contour.js").Near} to
 * @param {boolean} round the whole way round although both are one point
 * @returns {Float64Array}
 */
function between(points, from, to, round) {
  const corners = points.length / 2;
  let steps = (to.edge - from.edge + corners) % corners;
  if (steps === 0 && (round || along(points, to) < along(points, from))) steps = corners;
  const route = new Float64Array(2 * (steps + 2));
  route[0] = from.x;
  route[1] = from.y;
  for (let step = 1; step <= steps; step++) {
    const corner = (from.edge + step) % corners;
    route[2 * step] = points[2 * corner];
    route[2 * step + 1] = points[2 * corner + 1];
  }
  route[2 * steps + 2] = to.x;
  route[2 * steps + 3] = to.y;
  return route;
}

/**
 * How far along its edge a point lies.
 * @param {ArrayLike<number>} points
 * @param {import("./contour.js").Near} near
 */
function along(points, near) {
  return Math.abs(near.x - points[2 * near.edge]) + Math.abs(near.y - points[2 * near.edge + 1]);
}

/**
 * @param {Float64Array} points
 * @returns {Float64Array}
 */
function reversed(points) {
  const result = new Float64Array(points.length);
  for (let place = 0; place < points.length; place += 2) {
    result[points.length - 2 - place] = points[place];
    result[points.length - 1 - place] = points[place + 1];
  }
  return result;
}

/**
 * @param {Float64Array} a
 * @param {Float64Array} b
 * @returns {Float64Array}
 */
function joined(a, b) {
  const result = new Float64Array(a.length + b.length);
  result.set(a);
  result.set(b, a.length);
  return result;
}

/**
 * Whether the first polygon holds more pixels; on a tie, whether its route is at least as long.
 * @param {Float64Array} polygonA
 * @param {Float64Array} routeA
 * @param {Float64Array} polygonB
 * @param {Float64Array} routeB
 * @returns {boolean}
 */
function larger(polygonA, routeA, polygonB, routeB) {
  const more = count(polygonA) - count(polygonB);
  return more > 0 || (more === 0 && length(routeA) >= length(routeB));
}

/** @param {Float64Array} points */
function length(points) {
  let sum = 0;
  for (let place = 2; place < points.length; place += 2) {
    sum += Math.hypot(points[place] - points[place - 2], points[place + 1] - points[place - 1]);
  }
  return sum;
}

/**
 * The trace held inside the image, without repeated points.
 * @param {ArrayLike<number>} drawn
 * @param {number} width
 * @param {number} height
 * @returns {number[]}
 */
function hold(drawn, width, height) {
  /** @type {number[]} */
  const held = [];
  for (let place = 0; place < drawn.length; place += 2) {
    const x = Math.min(Math.max(drawn[place], 0), width);
    const y = Math.min(Math.max(drawn[place + 1], 0), height);
    const count = held.length;
    if (!count || held[count - 2] !== x || held[count - 1] !== y) held.push(x, y);
  }
  return held;
}

/**
 * Cut the trace's tails off at its last crossing with the contour near its start, and at its first one near its end: a hand
 * that begins a little on the wrong side would otherwise leave a notch.
 * @param {ArrayLike<number>} points
 * @param {number[]} trace
 * @param {number} reach in image pixels along the trace
 * @returns {Float64Array}
 */
function trimEnds(points, trace, reach) {
  // Neither end reaches beyond the middle, so that a short trace keeps a part of itself.
  const limit = Math.min(reach, length(Float64Array.from(trace)) / 2);
  const once = trimStart(points, trace, limit);
  const turned = reversed(once);
  return reversed(trimStart(points, Array.from(turned), limit));
}

/**
 * @param {ArrayLike<number>} points
 * @param {number[]} trace
 * @param {number} reach
 * @returns {Float64Array}
 */
function trimStart(points, trace, reach) {
  /** @type {number[] | null} */
  let cut = null;
  let walked = 0;
  for (let place = 2; place < trace.length && walked < reach; place += 2) {
    const x0 = trace[place - 2];
    const y0 = trace[place - 1];
    const step = Math.hypot(trace[place] - x0, trace[place + 1] - y0);
    const most = Math.min(1, (reach - walked) / step);
    const share = lastCrossing(points, x0, y0, trace[place], trace[place + 1], most);
    if (share >= 0) {
      cut = [x0 + share * (trace[place] - x0), y0 + share * (trace[place + 1] - y0), ...trace.slice(place)];
    }
    walked += step;
  }
  return Float64Array.from(cut ?? trace);
}

/**
 * The last crossing of a segment with a contour, as a share of the segment up to `most`; -1 if there is none.
 * @param {ArrayLike<number>} points
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 * @param {number} most
 * @returns {number}
 */
function lastCrossing(points, x0, y0, x1, y1, most) {
  let last = -1;
  const count = points.length;
  for (let place = 0; place < count; place += 2) {
    const next = place + 2 < count ? place + 2 : 0;
    const upright = points[place] === points[next];
    // Along the edge `a` is fixed, `b` runs.
    const a = upright ? points[place] : points[place + 1];
    const from = upright ? points[place + 1] : points[place];
    const to = upright ? points[next + 1] : points[next];
    const [a0, a1, b0, b1] = upright ? [x0, x1, y0, y1] : [y0, y1, x0, x1];
    if (a0 < a === a1 < a) continue;
    const share = (a - a0) / (a1 - a0);
    const b = b0 + share * (b1 - b0);
    if (b >= Math.min(from, to) && b <= Math.max(from, to) && share <= most && share > last) last = share;
  }
  return last;
}
