// @ts-check
/** Mouse, pen and fingers over the image: what belongs to the tool, what moves the image, and the brush's circle. */

/** @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("../tools/tool.js").Point} Point */

/** Two clicks within this time and distance are a double click. */
const DOUBLE_TIME = 400;
const DOUBLE_DISTANCE = 8;

/**
 * @param {Editor} editor
 * @param {HTMLElement} host
 */
export function listen(editor, host) {
  return new Pointer(editor, host);
}

export class Pointer {
  /** @param {Editor} editor @param {HTMLElement} host */
  constructor(editor, host) {
    this.editor = editor;
    this.host = host;
    /** Space is held: a drag moves the image. */
    this.grip = false;
    this.gripped = false;
    /** Fingers and buttons that are down. @type {Map<number, {x: number, y: number}>} */
    this.down = new Map();
    /** @type {"tool" | "pan" | "pinch" | null} */
    this.mode = null;
    this.latest = { time: -Infinity, x: 0, y: 0 };
    this.place = { x: 0, y: 0 };
    /** Begin of the first event since the last frame, for measuring. @type {number | null} */
    this.begin = null;
    this.circle = document.createElement("div");
    this.circle.className = "brush-circle";
    this.circle.setAttribute("aria-hidden", "true");
    host.append(this.circle);
    host.addEventListener("pointerdown", (event) => this.onDown(event));
    host.addEventListener("pointermove", (event) => this.onMove(event));
    host.addEventListener("pointerup", (event) => this.onUp(event));
    host.addEventListener("pointercancel", (event) => this.onCancel(event));
    host.addEventListener("pointerleave", () => {
      this.circle.hidden = true;
      if (!this.mode) editor.setHovered(null);
    });
    host.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    host.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** @param {MouseEvent} event @returns {Point} */
  point(event) {
    const { left, top } = this.host.getBoundingClientRect();
    const sx = event.clientX - left;
    const sy = event.clientY - top;
    const [x, y] = this.editor.view.toImage(sx, sy);
    return { x, y, sx, sy, erase: event.ctrlKey || event.metaKey };
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    this.begin ??= performance.now();
    if (event.button === 2) return;
    event.preventDefault();
    this.host.focus({ preventScroll: true });
    this.host.setPointerCapture(event.pointerId);
    this.down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.down.size === 2) {
      // A second finger: both move and zoom the image, and what the first began is dropped.
      this.editor.tool.cancel();
      this.mode = "pinch";
    } else if (event.button === 1 || this.grip) {
      this.mode = "pan";
      this.gripped = true;
    } else if (this.down.size === 1) {
      this.mode = "tool";
      this.editor.tool.down(this.point(event));
    }
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    this.begin ??= performance.now();
    this.place = { x: event.clientX, y: event.clientY };
    this.moveCursor(event.pointerType !== "touch");
    const before = this.down.get(event.pointerId);
    if (!before) {
      this.editor.tool.hover(this.point(event));
      return;
    }
    const next = { x: event.clientX, y: event.clientY };
    if (this.mode === "pan") this.editor.pan(next.x - before.x, next.y - before.y);
    else if (this.mode === "pinch") this.pinch(event.pointerId, before, next);
    else if (this.mode === "tool") {
      const events = event.getCoalescedEvents?.() ?? [];
      this.editor.tool.drag((events.length ? events : [event]).map((one) => this.point(one)));
    }
    this.down.set(event.pointerId, next);
  }

  /**
   * @param {number} id
   * @param {{x: number, y: number}} before
   * @param {{x: number, y: number}} next
   */
  pinch(id, before, next) {
    const other = [...this.down].find(([one]) => one !== id)?.[1];
    if (!other) return;
    const { left, top } = this.host.getBoundingClientRect();
    const apart = Math.hypot(before.x - other.x, before.y - other.y);
    const factor = apart > 0 ? Math.hypot(next.x - other.x, next.y - other.y) / apart : 1;
    this.editor.pan((next.x - before.x) / 2, (next.y - before.y) / 2);
    this.editor.zoom(factor, (next.x + other.x) / 2 - left, (next.y + other.y) / 2 - top);
  }

  /** @param {PointerEvent} event */
  onUp(event) {
    this.begin ??= performance.now();
    if (!this.down.delete(event.pointerId)) return;
    const { mode } = this;
    if (!this.down.size) this.mode = null;
    if (mode !== "tool") return;
    const point = this.point(event);
    const { tool } = this.editor;
    tool.up(point);
    const { latest } = this;
    const near = Math.hypot(event.clientX - latest.x, event.clientY - latest.y) <= DOUBLE_DISTANCE;
    const double = near && event.timeStamp - latest.time < DOUBLE_TIME;
    this.latest = { time: double ? -Infinity : event.timeStamp, x: event.clientX, y: event.clientY };
    if (double && this.editor.tool === tool) tool.double(point);
  }

  /** @param {PointerEvent} event */
  onCancel(event) {
    this.down.delete(event.pointerId);
    if (!this.down.size) this.mode = null;
    this.editor.tool.cancel();
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    event.preventDefault();
    const { left, top } = this.host.getBoundingClientRect();
    if (event.altKey && this.editor.size !== null) {
      this.editor.brush.resize(event.deltaY + event.deltaX < 0 ? 1 : -1);
      return;
    }
    // Lines and pages of a wheel, as pixels.
    const unit = [1, 33, 400][event.deltaMode] ?? 1;
    const factor = Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.004 : 0.002));
    this.editor.zoom(factor, event.clientX - left, event.clientY - top);
  }

  /** Space goes down: from here a drag moves the image. */
  grab() {
    this.grip = true;
    this.gripped = false;
    this.host.classList.add("grip");
  }

  /** Space goes up; true if nothing was moved meanwhile, so that it was a tap. */
  letGo() {
    this.grip = false;
    this.host.classList.remove("grip");
    return !this.gripped;
  }

  /** Put the brush's circle under the pointer. @param {boolean} [shown] */
  moveCursor(shown = !this.circle.hidden) {
    const { size } = this.editor;
    this.circle.hidden = size === null || !shown;
    if (this.circle.hidden || size === null) return;
    const { left, top } = this.host.getBoundingClientRect();
    const side = Math.max(2, size * this.editor.view.zoom);
    const { style } = this.circle;
    style.width = style.height = `${side}px`;
    style.transform = `translate(${this.place.x - left - side / 2}px, ${this.place.y - top - side / 2}px)`;
  }
}
