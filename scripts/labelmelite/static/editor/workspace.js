// @ts-check
/** What the two pages with an editor share: the stage, buttons, keys, the line that says what happens, and frames measured. */

import { element } from "../pages/frame.js";
import { bindKeys, toolbar, viewBar } from "./actions.js";
import { confirm } from "./dialogs.js";
import { Editor } from "./editor.js";

/** @typedef {import("../pages/frame.js").Frame} Frame */
/** @typedef {import("./editor.js").Page} Page */
/** @typedef {import("./editor.js").ToolName} ToolName */

/**
 * @typedef {object} Workspace
 * @property {Editor} editor
 * @property {HTMLElement} host what holds the canvases
 * @property {HTMLElement} tools
 * @property {HTMLElement} foot
 */

/**
 * @param {Frame} frame
 * @param {{tools: ToolName[], single?: boolean, readOnly?: boolean, askCategory: Page["askCategory"], changed: Page["changed"],
 *   shown: () => void}} options `shown` is called at most once a frame
 * @returns {Workspace}
 */
export function makeWorkspace(frame, { tools, single = false, readOnly = false, askCategory, changed, shown }) {
  const host = element("div", { class: "stage", tabindex: "0", role: "application", "aria-label": "Image with masks", "aria-describedby": "status" });
  const status = element("p", { class: "status", id: "status", role: "status", "aria-live": "polite" });
  let asked = 0;
  /** @type {(() => void)[]} */
  const updates = [];
  const editor = new Editor(host, {
    changed,
    shown: () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        for (const update of updates) update();
        shown();
      });
    },
    say: (text) => {
      status.textContent = text;
    },
    askCategory,
    confirm: (question) => confirm(frame.keys, question, "Delete it"),
  }, { single, readOnly });
  const bar = toolbar(editor, frame.keys, { tools, whole: !single });
  const view = viewBar(editor, frame.keys);
  updates.push(bar.update, view.update);
  // An earlier workspace of this page, with other tools, is gone.
  frame.keys.handlers.clear();
  bindKeys(editor, frame.keys, { tools, whole: !single });
  measure(editor);
  return { editor, host, tools: bar.root, foot: element("div", { class: "foot" }, status, view.root) };
}

/**
 * Keep how long the work of each frame took, from its first event to the end of drawing, where a benchmark asks for it by
 * setting `window.frames_measured` to a list. Reading a pixel back makes the browser draw at once and not later.
 * @param {Editor} editor
 */
function measure(editor) {
  editor.stage.drawn = () => {
    const begin = editor.pointer.begin;
    editor.pointer.begin = null;
    const list = /** @type {any} */ (window).frames_measured;
    if (!list || begin === null) return;
    const scripted = performance.now() - begin;
    for (const context of [editor.stage.image, editor.stage.masks, editor.stage.overlay]) context.getImageData(0, 0, 1, 1);
    list.push({ scripted, drawn: performance.now() - begin });
  };
}

/**
 * Load an image's pixels.
 * @param {string} address
 * @returns {Promise<HTMLImageElement>}
 */
export async function loadPicture(address) {
  const picture = new Image();
  picture.src = address;
  try {
    await picture.decode();
  } catch {
    throw new Error("The image cannot be shown: its file is missing or damaged.");
  }
  return picture;
}
