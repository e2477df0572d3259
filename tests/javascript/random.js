/** Random masks and numbers for property tests, the same on every run. */

/**
 * @param {number} seed
 * @returns {() => number} numbers from 0 to 1 (mulberry32)
 */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * A mask of noise, or of boxes and holes, somewhere in an image.
 * @param {() => number} random
 * @param {number} width of the image
 * @param {number} height
 * @returns {import("../../scripts/labelmelite/static/geometry/mask.js").Bitmap}
 */
export function randomMask(random, width, height) {
  const data = new Uint8Array(width * height);
  if (random() < 0.3) {
    const density = random();
    for (let place = 0; place < data.length; place++) data[place] = random() < density ? 1 : 0;
  } else {
    for (let box = Math.ceil(random() * 5); box > 0; box--) {
      const value = random() < 0.7 ? 1 : 0;
      const [x0, x1] = [random() * width, random() * width].sort((a, b) => a - b);
      const [y0, y1] = [random() * height, random() * height].sort((a, b) => a - b);
      for (let y = Math.floor(y0); y < y1; y++) for (let x = Math.floor(x0); x < x1; x++) data[y * width + x] = value;
    }
  }
  return { x: 0, y: 0, width, height, data };
}

/**
 * A mask from rows of text, "#" for a pixel.
 * @param {string[]} rows
 * @returns {import("../../scripts/labelmelite/static/geometry/mask.js").Bitmap}
 */
export function drawn(...rows) {
  const data = Uint8Array.from(rows.join(""), (letter) => (letter === "#" ? 1 : 0));
  return { x: 0, y: 0, width: rows[0].length, height: rows.length, data };
}
