/**
 * Reads one JSON record a line, {height, width, pixels (base64 of bytes, row by row), counts}, and writes for each what the
 * browser's code makes of it: the text of the pixels, the pixels of the text, both ways of the cropped form, area and box.
 */

import { createInterface } from "node:readline";

import * as mask from "../../scripts/labelmelite/static/geometry/mask.js";
import * as rle from "../../scripts/labelmelite/static/geometry/rle.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { height, width, pixels, counts } = JSON.parse(line);
  const given = { size: [height, width], counts };
  const bytes = new Uint8Array(Buffer.from(pixels, "base64"));
  const record = {
    counts: rle.encode(bytes, height, width).counts,
    cropped: mask.toRle(mask.trim({ x: 0, y: 0, width, height, data: bytes }), height, width).counts,
    again: mask.toRle(mask.fromRle(given), height, width).counts,
    pixels: Buffer.from(rle.decode(given)).toString("base64"),
    area: rle.area(given),
    box: rle.box(given),
  };
  process.stdout.write(`${JSON.stringify(record)}\n`);
}
