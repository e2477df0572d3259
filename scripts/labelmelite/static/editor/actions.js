// @ts-check
/** Keys and buttons of an editor: the same actions by both. */

import { element } from "../pages/frame.js";
import { icon } from "./icons.js";
import { showEdges, snap } from "./snapping.js";

/** @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("../keys.js").Keys} Keys */

/** Screen pixels of one move. */
const MOVE = 100;
/** A key that was held longer than this is let go again by its release. */
const HOLD = 350;

/**
 * @param {Editor} editor
 * @param {Keys} keys
 * @param {{tools: import("./editor.js").ToolName[], whole: boolean}} options the tools of this page, and whether it has all changes
 */
export function bindKeys(editor, keys, { tools, whole }) {
  for (const tool of tools) keys.on(`tool.${tool}`, () => editor.use(tool));
  keys.on("tool.leave", () => editor.leave());
  bindView(editor, keys);
  keys.on("edit.undo", () => editor.undo(), { repeat: true });
  keys.on("edit.redo", () => editor.redo(), { repeat: true });
  keys.on("edit.backspace", () => editor.tool.backspace());
  keys.on("edit.other", () => editor.tool.other());
  keys.on("edit.commit", (event) => commitDown(editor, event), { up: (event) => commitUp(editor, event) });
  keys.on("cursor.toggle", () => editor.cross.toggle());
  keys.on("brush.smaller", () => editor.brush.resize(-1), { repeat: true });
  keys.on("brush.larger", () => editor.brush.resize(1), { repeat: true });
  if (!whole) return;
  keys.on("edit.delete", () => editor.deleteSelected());
  keys.on("edit.snap", () => snap(editor));
  for (const how of /** @type {const} */ (["fill", "largest", "grow", "shrink"])) keys.on(`edit.${how}`, () => editor.reshape(how));
  keys.on("edit.rename", () => editor.rename());
  keys.on("list.next", () => editor.select(editor.scene.neighbour(1)), { repeat: true });
  keys.on("list.previous", () => editor.select(editor.scene.neighbour(-1)), { repeat: true });
}

/** @param {Editor} editor @param {Keys} keys */
function bindView(editor, keys) {
  const ways = /** @type {const} */ ([["up", 0, -1], ["left", -1, 0], ["down", 0, 1], ["right", 1, 0]]);
  for (const [name, dx, dy] of ways) {
    const move = (/** @type {KeyboardEvent} */ event) => {
      if (editor.cross.on && event.key.startsWith("Arrow")) editor.cross.move(dx, dy);
      else editor.pan(-dx * MOVE, -dy * MOVE);
    };
    keys.on(`view.${name}`, move, { repeat: true });
    keys.on(`cursor.${name}`, () => editor.cross.on && editor.cross.move(dx, dy, true), { repeat: true });
  }
  keys.on("view.out", () => editor.zoom(0.8), { repeat: true });
  keys.on("view.in", () => editor.zoom(1.25), { repeat: true });
  keys.on("view.focus", () => editor.focus());
  keys.on("view.fit", () => editor.fit());
  keys.on("view.darker", () => editor.setBrightness(editor.brightness - 0.1), { repeat: true });
  keys.on("view.brighter", () => editor.setBrightness(editor.brightness + 0.1), { repeat: true });
  keys.on("view.invert", () => editor.invert());
  keys.on("view.recolour", () => editor.recolour());
  keys.on("view.edges", () => showEdges(editor));
  let since = 0;
  keys.on("view.hide", () => {
    since = performance.now();
    editor.hide(!editor.stage.hidden);
  }, {
    up: () => {
      if (performance.now() - since > HOLD) editor.hide(!editor.stage.hidden);
    },
  });
}

/** @param {Editor} editor @param {KeyboardEvent} event */
function commitDown(editor, event) {
  if (editor.cross.on) editor.cross.press();
  else if (event.key === " ") editor.pointer.grab();
  else editor.tool.commit();
}

/** A tap of Space commits; Space with a drag has moved the image. @param {Editor} editor @param {KeyboardEvent} event */
function commitUp(editor, event) {
  if (editor.pointer.grip && editor.pointer.letGo() && event.key === " ") editor.tool.commit();
}

/**
 * A button that does what a key does.
 * @param {Keys} keys
 * @param {string} action
 * @param {string} drawing
 * @param {string} name what the button says
 * @param {() => void} run
 * @param {string} [style]
 */
export function actionButton(keys, action, drawing, name, run, style = "tool") {
  const button = element("button", { class: style, type: "button", onclick: run }, icon(drawing), element("span", { text: name }));
  keys.describe(button, action);
  return button;
}

/**
 * The buttons beside the image.
 * @param {Editor} editor
 * @param {Keys} keys
 * @param {{tools: import("./editor.js").ToolName[], whole: boolean}} options whole: objects can be deleted and renamed
 */
export function toolbar(editor, keys, { tools, whole }) {
  const names = { select: "Select", edit: "Edit", brush: "Brush", new: "New" };
  /** @type {Map<string, HTMLButtonElement>} */
  const choices = new Map(tools.map((tool) => [tool, actionButton(keys, `tool.${tool}`, tool, names[tool], () => editor.use(tool))]));
  const undo = actionButton(keys, "edit.undo", "undo", "Undo", () => editor.undo());
  const redo = actionButton(keys, "edit.redo", "redo", "Redo", () => editor.redo());
  const snapping = actionButton(keys, "edit.snap", "snap", "Snap", () => snap(editor));
  const other = actionButton(keys, "edit.other", "other", "Other", () => editor.tool.other());
  const drop = actionButton(keys, "edit.delete", "delete", "Delete", () => editor.deleteSelected());
  const rename = actionButton(keys, "edit.rename", "rename", "Name", () => editor.rename());
  const cross = actionButton(keys, "cursor.toggle", "cross", "Cross", () => editor.cross.toggle());
  const change = editor.readOnly ? [] : [undo, redo, other, ...(whole ? [snapping, rename, drop] : []), cross];
  const root = element("div", { class: "tools", role: "toolbar", "aria-label": "Tools", "aria-orientation": "vertical" },
    element("div", { class: "group", role: "group", "aria-label": "Tools" }, ...choices.values()),
    element("div", { class: "group", role: "group", "aria-label": "Changes" }, ...change));
  const update = () => {
    for (const [tool, button] of choices) button.setAttribute("aria-pressed", String(tool === editor.toolName));
    cross.setAttribute("aria-pressed", String(editor.cross.on));
    undo.disabled = !editor.history.done.length;
    redo.disabled = !editor.history.undone.length;
    snapping.disabled = drop.disabled = rename.disabled = editor.scene.current === undefined;
    other.disabled = editor.toolName !== "edit";
  };
  return { root, update };
}

/**
 * Zoom, hiding and brightness.
 * @param {Editor} editor
 * @param {Keys} keys
 */
export function viewBar(editor, keys) {
  const zoom = element("span", { class: "zoom number" });
  const hide = actionButton(keys, "view.hide", "hide", "Hide masks", () => editor.hide(!editor.stage.hidden), "plain");
  const bright = element("input", { type: "range", min: "0.4", max: "3", step: "0.1", "aria-label": "Brightness" });
  bright.addEventListener("input", () => editor.setBrightness(Number(bright.value)));
  bright.title = `${keys.tooltip("view.darker")}, ${keys.tooltip("view.brighter")}`;
  const size = element("span", { class: "size" });
  const root = element("div", { class: "view-bar", role: "group", "aria-label": "View" },
    size,
    actionButton(keys, "view.out", "out", "Zoom out", () => editor.zoom(0.8), "plain"),
    zoom,
    actionButton(keys, "view.in", "in", "Zoom in", () => editor.zoom(1.25), "plain"),
    actionButton(keys, "view.fit", "fit", "Fit", () => editor.fit(), "plain"),
    hide,
    element("label", { class: "bright" }, icon("bright"), bright));
  const update = () => {
    const text = `${Math.round(editor.view.zoom * 100)} %`;
    if (zoom.textContent !== text) zoom.textContent = text;
    hide.setAttribute("aria-pressed", String(editor.stage.hidden));
    bright.value = String(editor.brightness);
    size.textContent = editor.size === null ? "" : `Brush ${editor.size} px`;
  };
  return { root, update };
}
