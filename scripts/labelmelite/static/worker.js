// @ts-check
/** The heavy work beside the page: masks decoded and traced, edges found, contours snapped. */

import { trace } from "./geometry/contour.js";
import { brightness, canny, snap } from "./geometry/edges.js";
import { fromRle } from "./geometry/mask.js";

/** @typedef {import("./geometry/rle.js").Rle} Rle */

const kinds = {
  /** @param {{masks: Rle[]}} given */
  decode({ masks }) {
    return masks.map((mask) => {
      const bitmap = fromRle(mask);
      return { bitmap, loops: trace(bitmap) };
    });
  },
  /** @param {{rgba: Uint8ClampedArray, width: number, height: number}} given */
  edges({ rgba, width, height }) {
    return canny(brightness(rgba), width, height).edge;
  },
  /**
   * @param {{rgba: Uint8ClampedArray, width: number, height: number, loops: Int32Array[],
   *   where: {x: number, y: number, imageWidth: number, imageHeight: number}}} given
   */
  snap({ rgba, width, height, loops, where }) {
    const edges = canny(brightness(rgba), width, height);
    return loops.map((points) => snap(points, edges, where));
  },
};

self.addEventListener("message", (event) => {
  const { id, kind, given } = event.data;
  try {
    self.postMessage({ id, result: kinds[/** @type {keyof typeof kinds} */ (kind)](given) });
  } catch (error) {
    self.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
});
