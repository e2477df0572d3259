// @ts-check
/**
 * Colours of masks: eight that people with any colour vision tell apart (after Okabe and Ito, Color Universal Design, 2008),
 * made lighter for a dark ground. Colour never says anything alone: masks have edges, and names stand in the list.
 */

const COLOURS = [
  [86, 180, 233],
  [230, 159, 0],
  [0, 190, 140],
  [240, 228, 66],
  [204, 121, 167],
  [90, 140, 255],
  [232, 110, 40],
  [200, 205, 210],
];
const INSIDE = 96;
const EDGE = 235;

/** @param {number} place @param {number} alpha */
function pixel(place, alpha) {
  const [red, green, blue] = COLOURS[place % COLOURS.length];
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Colour inside a mask, as a little-endian pixel. @param {number} place */
export function tint(place) {
  return pixel(place, INSIDE);
}

/** Colour of a mask's edge, as a little-endian pixel. @param {number} place */
export function edgeColour(place) {
  return pixel(place, EDGE);
}

/** @param {number} place */
export function cssColour(place) {
  return `rgb(${COLOURS[place % COLOURS.length].join(" ")})`;
}

/** What tools draw with. */
export const INK = {
  outline: "#ffffff",
  kept: "#ffa01e",
  dropped: "#000000",
  halo: "#000000b0",
  pale: "#ffffffc0",
  add: 0x9fa5d14f,
  erase: 0xa05e6eff,
};
