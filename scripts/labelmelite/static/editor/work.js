// @ts-check
/** Asks the worker, and waits for its answer. */

/** @typedef {import("../geometry/mask.js").Bitmap} Bitmap */
/** @typedef {import("../geometry/contour.js").Loop} Loop */
/** @typedef {import("../geometry/rle.js").Rle} Rle */

export class Work {
  constructor() {
    this.worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module" });
    this.count = 0;
    /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const one = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) one?.resolve(result);
      else one?.reject(new Error(error));
    });
    this.worker.addEventListener("error", () => {
      for (const one of this.waiting.values()) one.reject(new Error("The browser could not start the worker."));
      this.waiting.clear();
    });
  }

  /**
   * @param {string} kind
   * @param {Record<string, unknown>} given
   * @returns {Promise<any>}
   */
  ask(kind, given) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, kind, given });
    });
  }

  /**
   * @param {Rle[]} masks
   * @returns {Promise<{bitmap: Bitmap, loops: Loop[]}[]>}
   */
  decode(masks) {
    return this.ask("decode", { masks });
  }
}
