// @ts-check
/** What every tool can be asked; a tool overrides what it needs. */

/** @typedef {import("../editor/editor.js").Editor} Editor */
/** @typedef {import("../editor/pen.js").Pen} Pen */

/**
 * Where the pointer is, or the keyboard's cross.
 * @typedef {object} Point
 * @property {number} x in the image
 * @property {number} y
 * @property {number} sx on the screen
 * @property {number} sy
 * @property {boolean} erase Ctrl, or the command key of a Mac, is held
 */

/** A press that moves less than this many screen pixels is a click. */
export const CLICK = 10;

export class Tool {
  /** @param {Editor} editor */
  constructor(editor) {
    this.editor = editor;
    /** The name of the cursor: a CSS class of the stage. */
    this.cursor = "cross";
    /** What the status line says while the tool is on. */
    this.hint = "";
  }

  enter() {}

  /** The tool is left; nothing half done may stay. */
  leave() {
    this.cancel();
  }

  /** Take back what is half done; false if there was nothing. @returns {boolean} */
  cancel() {
    return false;
  }

  /** @param {Point} _point */
  hover(_point) {}

  /** @param {Point} _point */
  down(_point) {}

  /** @param {Point[]} _points where the pointer was since the last call; at least one */
  drag(_points) {}

  /** @param {Point} _point */
  up(_point) {}

  /** Two clicks at one place. @param {Point} _point */
  double(_point) {}

  /** Commit what is half done. */
  commit() {}

  /** Keep the other route. */
  other() {}

  /** The key Backspace. */
  backspace() {}

  /** Undo of what is half done; false if there is nothing. @returns {boolean} */
  undo() {
    return false;
  }

  /** Whether a press of the keyboard's cross holds until the next press, as a brush does. */
  get holds() {
    return false;
  }

  /** Whether the tool draws the object that it changes, so that nothing else need show it. */
  get busy() {
    return false;
  }

  /** @param {Pen} _pen */
  draw(_pen) {}
}
