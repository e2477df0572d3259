/**
 * COCO run lengths in the browser: the COCO API of the thesis (section 4.3.1), bit for bit what pycocotools gives.
 *
 * Pixels run down the columns; runs alternate between zeros and ones and begin with zeros. As text each run (from the
 * fourth on: its difference to the run two before) stands in groups of five bits, low group first, as the characters
 * 48 to 111. Bits are taken apart by division, because JavaScript's bit operators end at 32 bits.
 */

/**
 * A mask at image size; size is [height, width] in pixels.
 * @typedef {{size: number[], counts: string}} Rle
 */

/** Beyond this number of pixels a size is a mistake; the server's limit is the same. */
export const MAX_PIXELS = 2 ** 30;

/** Seven groups hold 35 bits, more than any size that passes; longer numbers are mistakes. */
const MAX_GROUPS = 7;

/** A mask that cannot be used; the message says what is wrong with it. */
export class MaskError extends Error {}

/**
 * Runs of compressed counts.
 * @param {string} text
 * @returns {number[]}
 */
export function parseCounts(text) {
  /** @type {number[]} */
  const runs = [];
  let value = 0;
  let weight = 1;
  let groups = 0;
  for (let place = 0; place < text.length; place++) {
    const group = text.charCodeAt(place) - 48;
    if (group < 0 || group > 63) throw new MaskError("has counts with characters outside the RLE alphabet");
    if (groups === MAX_GROUPS) throw new MaskError("has a number of more than seven groups in its counts");
    value += (group & 31) * weight;
    weight *= 32;
    groups += 1;
    if (group & 32) continue;
    if (group & 16) value -= weight;
    const count = runs.length;
    runs.push(count > 2 ? value + runs[count - 2] : value);
    value = 0;
    weight = 1;
    groups = 0;
  }
  if (groups) throw new MaskError("has counts that end in the middle of a number");
  return runs;
}

/**
 * Compressed counts of runs.
 * @param {ArrayLike<number>} runs
 * @returns {string}
 */
export function formatCounts(runs) {
  let text = "";
  for (let place = 0; place < runs.length; place++) {
    let value = place > 2 ? runs[place] - runs[place - 2] : runs[place];
    for (let more = true; more; ) {
      const next = Math.floor(value / 32);
      const group = value - next * 32;
      more = group & 16 ? next !== -1 : next !== 0;
      text += String.fromCharCode(group + (more ? 32 : 0) + 48);
      value = next;
    }
  }
  return text;
}

/**
 * Join runs of one colour that an empty run separates, and drop empty runs at the end.
 * @param {number[]} runs
 * @returns {number[]}
 */
function canonical(runs) {
  /** @type {number[]} */
  const joined = [];
  for (let place = 0; place < runs.length; place++) {
    if (runs[place] === 0 && place > 0) continue;
    // The last kept run has this run's colour when an empty one was left out between them.
    if (joined.length && (joined.length - 1) % 2 === place % 2) joined[joined.length - 1] += runs[place];
    else joined.push(runs[place]);
  }
  return joined;
}

/**
 * A size [height, width] from outside, validated.
 * @param {unknown} size
 * @returns {[number, number]}
 */
export function checkedSize(size) {
  if (!Array.isArray(size) || size.length !== 2) throw new MaskError("has no size [height, width]");
  if (!size.every((side) => Number.isInteger(side) && side > 0)) {
    throw new MaskError(`has size [${size.join(", ")}]; two positive whole numbers are needed`);
  }
  if (size[0] * size[1] > MAX_PIXELS) {
    throw new MaskError(`has size ${size[0]} x ${size[1]}, more than ${MAX_PIXELS} pixels`);
  }
  return [size[0], size[1]];
}

/**
 * Validate a mask from outside and return it compressed in canonical form.
 * @param {unknown} mask an object with size and counts, the latter text or a list of runs
 * @param {[number, number]} [size] height and width of the image, which the mask's must equal
 * @returns {Rle}
 */
export function check(mask, size) {
  if (typeof mask !== "object" || mask === null || !("size" in mask) || !("counts" in mask)) {
    throw new MaskError("is no run-length mask: it needs size and counts");
  }
  const [height, width] = checkedSize(mask.size);
  if (size && (size[0] !== height || size[1] !== width)) {
    const hint = size[0] === width && size[1] === height ? "; height and width are swapped" : "";
    throw new MaskError(`has size ${height} x ${width}, the image has ${size[0]} x ${size[1]}${hint}`);
  }
  const runs = readRuns(mask.counts);
  let total = 0;
  for (const run of runs) {
    if (!Number.isInteger(run)) throw new MaskError(`has a run ${run}; whole numbers of pixels are needed`);
    if (run < 0) throw new MaskError("has a negative run");
    total += run;
  }
  if (total !== height * width) {
    throw new MaskError(`has runs that sum to ${total}, its size is ${height} x ${width} = ${height * width} pixels`);
  }
  return { size: [height, width], counts: formatCounts(canonical(runs)) };
}

/**
 * @param {unknown} counts
 * @returns {number[]}
 */
function readRuns(counts) {
  if (typeof counts === "string") return parseCounts(counts);
  if (Array.isArray(counts)) return counts;
  throw new MaskError(`has counts of type ${typeof counts}; text or a list is needed`);
}

/**
 * Runs of a checked mask, beginning with zeros.
 * @param {{size: number[], counts: string | number[]}} rle
 * @returns {number[]}
 */
export function toRuns(rle) {
  return readRuns(rle.counts);
}

/**
 * Run lengths of a whole bitmap, row by row.
 * @param {ArrayLike<number>} pixels height x width values, zero or not
 * @param {number} height
 * @param {number} width
 * @returns {Rle}
 */
export function encode(pixels, height, width) {
  /** @type {number[]} */
  const runs = [];
  let colour = false;
  let run = 0;
  for (let x = 0; x < width; x++) {
    for (let place = x; place < height * width; place += width) {
      if ((pixels[place] !== 0) !== colour) {
        runs.push(run);
        run = 0;
        colour = !colour;
      }
      run += 1;
    }
  }
  runs.push(run);
  return { size: [height, width], counts: formatCounts(runs) };
}

/**
 * The whole bitmap, row by row, one byte a pixel.
 * @param {Rle} rle
 * @returns {Uint8Array}
 */
export function decode(rle) {
  const [height, width] = rle.size;
  const pixels = new Uint8Array(height * width);
  forEachColumnRun(rle, (x, top, bottom) => {
    for (let place = top * width + x; place < bottom * width; place += width) pixels[place] = 1;
  });
  return pixels;
}

/**
 * Call back for each vertical piece of the mask: column, first row, row after the last.
 * @param {Rle} rle
 * @param {(x: number, top: number, bottom: number) => void} visit
 */
export function forEachColumnRun(rle, visit) {
  const height = rle.size[0];
  let position = 0;
  parseCounts(rle.counts).forEach((run, place) => {
    const end = position + run;
    if (place % 2) {
      for (let start = position; start < end; ) {
        const x = Math.floor(start / height);
        const top = start - x * height;
        const length = Math.min(end - start, height - top);
        visit(x, top, top + length);
        start += length;
      }
    }
    position = end;
  });
}

/**
 * Number of pixels.
 * @param {Rle} rle
 * @returns {number}
 */
export function area(rle) {
  return parseCounts(rle.counts).reduce((sum, run, place) => (place % 2 ? sum + run : sum), 0);
}

/**
 * Box [x, y, width, height] in pixels; all zero for an empty mask.
 * @param {Rle} rle
 * @returns {[number, number, number, number]}
 */
export function box(rle) {
  let left = Infinity;
  let top = Infinity;
  let right = -1;
  let bottom = -1;
  forEachColumnRun(rle, (x, first, end) => {
    left = Math.min(left, x);
    right = Math.max(right, x + 1);
    top = Math.min(top, first);
    bottom = Math.max(bottom, end);
  });
  return right < 0 ? [0, 0, 0, 0] : [left, top, right - left, bottom - top];
}

/**
 * Walk two masks of one size together.
 * @param {Rle} a
 * @param {Rle} b
 * @param {(length: number, inA: boolean, inB: boolean) => void} visit
 */
function walk(a, b, visit) {
  if (a.size[0] !== b.size[0] || a.size[1] !== b.size[1]) {
    throw new MaskError(`of ${a.size.join(" x ")} pixels and one of ${b.size.join(" x ")} cannot be compared`);
  }
  const runsA = parseCounts(a.counts);
  const runsB = parseCounts(b.counts);
  let placeA = 0;
  let placeB = 0;
  let leftA = runsA[0] ?? 0;
  let leftB = runsB[0] ?? 0;
  while (placeA < runsA.length && placeB < runsB.length) {
    const length = Math.min(leftA, leftB);
    if (length) visit(length, placeA % 2 === 1, placeB % 2 === 1);
    leftA -= length;
    leftB -= length;
    if (!leftA) leftA = runsA[++placeA];
    if (!leftB) leftB = runsB[++placeB];
  }
}

/**
 * Intersection over union; for a crowd the union is the area of `a` alone, which is COCO's rule.
 * @param {Rle} a
 * @param {Rle} b
 * @param {boolean} [crowd] whether `b` is a crowd
 * @returns {number}
 */
export function iou(a, b, crowd = false) {
  let intersection = 0;
  let union = 0;
  walk(a, b, (length, inA, inB) => {
    if (inA && inB) intersection += length;
    if (inA || (inB && !crowd)) union += length;
  });
  return intersection ? intersection / union : 0;
}

/**
 * Union of masks of one size, or their intersection.
 * @param {Rle[]} rles at least one
 * @param {boolean} [intersect]
 * @returns {Rle}
 */
export function merge(rles, intersect = false) {
  if (!rles.length) throw new MaskError("cannot be made of no masks");
  return rles.reduce((a, b) => {
    /** @type {number[]} */
    const runs = [0];
    walk(a, b, (length, inA, inB) => {
      const colour = intersect ? inA && inB : inA || inB;
      if (runs.length % 2 === (colour ? 0 : 1)) runs[runs.length - 1] += length;
      else runs.push(length);
    });
    return { size: [...a.size], counts: formatCounts(runs) };
  });
}
