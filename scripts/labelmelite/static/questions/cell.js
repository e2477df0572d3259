// @ts-check
/** One mask on a page: the crop with the mask beside the plain crop. */

import { recall } from "../net/storage.js";
import { element } from "../pages/frame.js";
import { cropOf } from "./crop.js";

/** @typedef {import("./sheet.js").Item} Item */
/** @typedef {import("./sheet.js").Given} Given */

const SIGNS = { yes: "✓ yes", no: "✗ no", other: "– not part" };
const REASONS = {
  wrong_class: "wrong class",
  bad_boundary: "bad boundary",
  two_objects: "two objects",
  partial: "partial",
  not_part_of_cluster: "",
};
/** A tint that people with each kind of colour blindness tell from the photograph, and its white edge. */
const TINT = [64, 140, 255, 150];

/** @type {Map<string, Promise<ImageBitmap>>} */
const loaded = new Map();
const KEPT = 200;

/**
 * Load a picture once; the oldest are forgotten.
 * @param {string} url
 * @returns {Promise<ImageBitmap>}
 */
export function load(url) {
  let picture = loaded.get(url);
  if (!picture) {
    picture = fetchPicture(url);
    picture.catch(() => loaded.delete(url));
    loaded.set(url, picture);
    const oldest = loaded.keys().next().value;
    if (loaded.size > KEPT && oldest !== undefined) loaded.delete(oldest);
  }
  return picture;
}

/** @param {string} url */
async function fetchPicture(url) {
  const headers = new Headers();
  const own = recall("labelmelite.session");
  if (own) headers.set("Authorization", `Bearer ${own}`);
  const response = await fetch(url, { headers, credentials: "same-origin" });
  if (!response.ok) {
    const given = await response.json().catch(() => null);
    throw new Error(given?.error?.message ?? `The picture cannot be had (${response.status}).`);
  }
  return createImageBitmap(await response.blob());
}

/** Draws an item and shows its answer. */
export class Cell {
  /**
   * @param {Item} item
   * @param {string} place  Such as "7 of 30".
   */
  constructor(item, place) {
    this.item = item;
    this.masked = element("canvas", { role: "img", "aria-label": `${item.alt}, with the mask` });
    this.plain = element("canvas", { role: "img", "aria-label": `${item.alt}, without the mask` });
    this.verdict = element("span", { class: "verdict" });
    this.pair = element("div", { class: "pair" }, this.masked, this.plain);
    this.element = element("div", { class: "cell" }, this.pair, element("span", { class: "place", text: place }), this.verdict);
    this.showsMask = true;
    /** @type {ImageBitmap | null} */
    this.picture = null;
  }

  /** Load and draw; a picture that cannot be had is said in its place, and the question can still be answered. */
  async draw() {
    if (this.picture) return;
    try {
      this.picture = await load(this.item.crop_url);
      this.paint();
    } catch (error) {
      this.element.append(element("div", { class: "failed", text: error instanceof Error ? error.message : String(error) }));
    }
  }

  paint() {
    const { picture } = this;
    if (!picture) return;
    const side = picture.width;
    for (const canvas of [this.masked, this.plain]) {
      canvas.width = side;
      canvas.height = side;
      canvas.getContext("2d")?.drawImage(picture, 0, 0);
    }
    if (this.showsMask && this.item.mask) tint(this.masked, cropOf(this.item.mask, this.item.crop, side));
  }

  /** @param {boolean} shown */
  showMask(shown) {
    if (shown === this.showsMask) return;
    this.showsMask = shown;
    this.paint();
  }

  /** @param {Given | null} given */
  showAnswer(given) {
    this.verdict.textContent = given ? words(given) : "";
    this.verdict.hidden = !given;
    if (given) this.element.dataset.reply = given.reply;
    else delete this.element.dataset.reply;
  }
}

/**
 * Return an answer in words.
 * @param {Given} given
 */
export function words(given) {
  const reason = given.reason ? REASONS[given.reason] : "";
  return reason ? `${SIGNS[given.reply]}: ${reason}` : SIGNS[given.reply];
}

/**
 * Lay a tint and a white edge of one pixel over a canvas where the mask is.
 * @param {HTMLCanvasElement} canvas
 * @param {Uint8Array} mask  One entry a pixel, row by row.
 */
export function tint(canvas, mask) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { width, height } = canvas;
  const image = context.getImageData(0, 0, width, height);
  const [red, green, blue, alpha] = TINT;
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 1) {
      if (!mask[at]) continue;
      const inside = x > 0 && mask[at - 1] && x < width - 1 && mask[at + 1] && y > 0 && mask[at - width] && y < height - 1 && mask[at + width];
      const place = 4 * at;
      if (inside) {
        image.data[place] += ((red - image.data[place]) * alpha) / 255;
        image.data[place + 1] += ((green - image.data[place + 1]) * alpha) / 255;
        image.data[place + 2] += ((blue - image.data[place + 2]) * alpha) / 255;
      } else {
        image.data.fill(255, place, place + 3);
      }
    }
  }
  context.putImageData(image, 0, 0);
}
