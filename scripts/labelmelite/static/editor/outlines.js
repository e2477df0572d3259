// @ts-check
/** The frame of what is to be drawn, and the contours of the objects that are meant. */

import { INK } from "./colours.js";

/**
 * @param {import("./editor.js").Editor} editor
 * @param {import("./pen.js").Pen} pen
 */
export function drawOutlines(editor, pen) {
  const { scene, box } = editor;
  if (box) {
    const { x, y, width, height } = box;
    const corners = [x, y, x + width, y, x + width, y + height, x, y + height];
    pen.line(corners, { colour: INK.pale, width: 1.5, dash: [8, 6], closed: true, halo: INK.halo });
  }
  // While a trace is drawn the tool shows the object itself.
  if (editor.stage.hidden || editor.tool.busy) return;
  const hovered = scene.item(scene.hovered);
  if (hovered && hovered !== scene.current) outline(pen, hovered, { colour: INK.pale, width: 1.5 });
  if (scene.current) outline(pen, scene.current, { colour: INK.outline, width: 2.5 });
}

/**
 * @param {import("./pen.js").Pen} pen
 * @param {import("./scene.js").Item} item
 * @param {{colour: string, width: number}} line
 */
function outline(pen, item, line) {
  for (const { points } of item.loops) pen.line(points, { ...line, closed: true, halo: INK.halo });
}
