// @ts-check
/** Edges of the image, found by the worker: contours move to them, or they are shown. */

import { replaceLoop } from "../geometry/reroute.js";
import { Layer } from "./layer.js";

/** @typedef {import("./editor.js").Editor} Editor */

/** Pixels around an object in which edges are looked for. */
const MARGIN = 12;
/** White, nearly opaque. */
const EDGE = 0xc8ffffff;

/**
 * Move the contours of the selected object to edges of the image nearby.
 * @param {Editor} editor
 */
export async function snap(editor) {
  editor.tool.commit();
  const { scene } = editor;
  const item = scene.current;
  if (!item) editor.say("Select an object first.");
  if (!item || editor.frozen || editor.busy) return;
  const { width, height } = scene;
  const x = Math.max(0, item.bitmap.x - MARGIN);
  const y = Math.max(0, item.bitmap.y - MARGIN);
  const right = Math.min(width, item.bitmap.x + item.bitmap.width + MARGIN);
  const bottom = Math.min(height, item.bitmap.y + item.bitmap.height + MARGIN);
  const rgba = editor.stage.pixels({ x, y, width: right - x, height: bottom - y });
  if (!rgba) return;
  const { bitmap, loops } = item;
  editor.busy = true;
  try {
    const given = { rgba, width: right - x, height: bottom - y, loops: loops.map((loop) => loop.points) };
    const polygons = await editor.work.ask("snap", { ...given, where: { x, y, imageWidth: width, imageHeight: height } });
    // Somebody went on drawing meanwhile, or turned the page; the answer belongs to another mask.
    if (editor.scene !== scene || item.bitmap !== bitmap) return;
    await editor.change(item, loops.reduce((mask, loop, place) => replaceLoop(mask, loop, polygons[place], scene), bitmap), "snap");
  } finally {
    editor.busy = false;
  }
}

/**
 * Show the edges that snapping finds, or no longer.
 * @param {Editor} editor
 */
export async function showEdges(editor) {
  const { stage, scene } = editor;
  if (stage.edges) {
    stage.edges = null;
    stage.refresh("masks");
    return;
  }
  const { width, height } = scene;
  const rgba = stage.pixels({ x: 0, y: 0, width, height });
  if (!rgba) return;
  const edge = await editor.work.ask("edges", { rgba, width, height });
  if (editor.scene !== scene) return;
  const layer = new Layer(width, height);
  layer.paint(layer.image, (pixels, part) => {
    for (let row = 0; row < part.height; row++) {
      for (let column = 0; column < part.width; column++) {
        if (edge[row * layer.step * width + column * layer.step]) pixels[row * part.width + column] = EDGE;
      }
    }
  });
  stage.edges = layer;
  stage.refresh("masks");
}
