// @ts-check
/** The whole image of an item, while a key is held. */

import { element } from "../pages/frame.js";
import { load, tint } from "./cell.js";
import { cropOf } from "./crop.js";

/**
 * Show the image with the mask over everything.
 * @param {import("./sheet.js").Item} item
 * @returns {() => void}  Closes it.
 */
export function showWhole(item) {
  const canvas = element("canvas", { role: "img", "aria-label": `${item.alt}, in the whole image` });
  const whole = element("div", { class: "whole" }, canvas);
  document.body.append(whole);
  load(item.image_url).then((picture) => {
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.getContext("2d")?.drawImage(picture, 0, 0);
    if (item.mask) outline(canvas, item);
  }).catch((error) => whole.replaceChildren(element("p", { text: error.message })));
  return () => whole.remove();
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {import("./sheet.js").Item} item
 */
function outline(canvas, item) {
  // The mask is laid out on a square that holds the image, and its part inside the image is drawn.
  const side = Math.max(canvas.width, canvas.height);
  const square = element("canvas", { width: String(side), height: String(side) });
  square.getContext("2d")?.drawImage(canvas, 0, 0);
  tint(square, cropOf(item.mask, { x: 0, y: 0, side: (side * item.width) / canvas.width }, side));
  canvas.getContext("2d")?.drawImage(square, 0, 0);
}
