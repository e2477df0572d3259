// @ts-check
/** Drawing with the keyboard: arrows move a cross over the image, Enter or Space presses where it is. */

/** @typedef {import("./editor.js").Editor} Editor */

/** Screen pixels of one step. */
const STEP = 8;
/** Two presses within this many milliseconds are a double click. */
const DOUBLE = 500;

export class Cross {
  /** @param {Editor} editor */
  constructor(editor) {
    this.editor = editor;
    this.on = false;
    this.x = 0;
    this.y = 0;
    this.pressed = false;
    this.latest = -Infinity;
    /** Where it was pressed last, on the screen. */
    this.pressedAt = [0, 0];
  }

  reset() {
    this.pressed = false;
    this.centre();
  }

  centre() {
    const { view } = this.editor;
    [this.x, this.y] = view.toImage(view.width / 2, view.height / 2);
  }

  toggle() {
    this.on = !this.on;
    if (this.on) this.centre();
    this.pressed = false;
    this.editor.tool.cancel();
    this.editor.say(this.on ? "The cross is on: arrows move it, Enter presses. Shift with an arrow moves by one pixel." : "The cross is off.");
    this.editor.page.shown();
    this.editor.refresh();
  }

  get point() {
    const [sx, sy] = this.editor.view.toScreen(this.x, this.y);
    return { x: this.x, y: this.y, sx, sy, erase: false };
  }

  /**
   * @param {number} dx -1, 0 or 1
   * @param {number} dy
   * @param {boolean} [fine] one pixel of the image
   */
  move(dx, dy, fine = false) {
    const { editor } = this;
    const step = fine ? 1 : STEP / editor.view.zoom;
    this.x = Math.min(Math.max(this.x + dx * step, 0), editor.scene.width);
    this.y = Math.min(Math.max(this.y + dy * step, 0), editor.scene.height);
    this.follow();
    if (this.pressed) editor.tool.drag([this.point]);
    else editor.tool.hover(this.point);
    editor.refresh();
  }

  /** Keep the cross in sight. */
  follow() {
    const { editor } = this;
    const { sx, sy } = this.point;
    const margin = 40;
    const dx = sx < margin ? margin - sx : sx > editor.view.width - margin ? editor.view.width - margin - sx : 0;
    const dy = sy < margin ? margin - sy : sy > editor.view.height - margin ? editor.view.height - margin - sy : 0;
    if (dx || dy) editor.pan(dx, dy);
  }

  press() {
    const { tool } = this.editor;
    if (!tool.holds) {
      const now = performance.now();
      tool.down(this.point);
      tool.up(this.point);
      const { sx, sy } = this.point;
      const near = Math.hypot(sx - this.pressedAt[0], sy - this.pressedAt[1]) < STEP / 2;
      if (near && now - this.latest < DOUBLE) tool.double(this.point);
      this.latest = now;
      this.pressedAt = [sx, sy];
    } else if (this.pressed) {
      this.pressed = false;
      tool.up(this.point);
    } else {
      this.pressed = true;
      tool.down(this.point);
      this.editor.say("Pressed. Enter again lets go.");
    }
  }

  /** @param {import("./pen.js").Pen} pen */
  draw(pen) {
    if (!this.on) return;
    const { x, y } = this;
    const long = 16 / this.editor.view.zoom;
    const gap = 4 / this.editor.view.zoom;
    const colour = this.pressed ? "#ffa01e" : "#ffffff";
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.line([x + dx * gap, y + dy * gap, x + dx * long, y + dy * long], { colour, width: 2.5, halo: "#000000" });
    }
    if (this.editor.size) {
      const points = Array.from({ length: 64 }, (_, place) => [
        x + (this.editor.brush.size / 2) * Math.cos((place * Math.PI) / 32),
        y + (this.editor.brush.size / 2) * Math.sin((place * Math.PI) / 32),
      ]).flat();
      pen.line(points, { colour, width: 1.5, closed: true, halo: "#000000" });
    }
  }
}
