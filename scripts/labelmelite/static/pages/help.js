// @ts-check
/** All keys, which everybody can change for themselves. */

import { request } from "../net/api.js";
import { ACTIONS, PRESETS, nameOf, refusal } from "../keys.js";
import { element, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */

await start((frame) => show(frame));

/** @param {Frame} frame */
function show(frame) {
  const { main, keys } = frame;
  /** @type {Map<string, HTMLElement[]>} */
  const groups = new Map();
  for (const [action, { group }] of Object.entries(ACTIONS)) groups.set(group, [...(groups.get(group) ?? []), row(frame, action)]);
  const preset = element("select", { "aria-label": "Set of keys" }, ...Object.keys(PRESETS).map((name) => element("option", { value: name, text: name })));
  const apply = element("button", { text: "Take this set", onclick: () => save(frame, { ...PRESETS[preset.value] }) });
  const reset = element("button", { text: "Back to the first keys", onclick: () => save(frame, {}) });
  main.replaceChildren(
    element("h1", { text: "Keys" }),
    element("p", { text: "Everything can be done from the keyboard. Press “Change”, then the new key. Tab moves between controls; in lists and grids the arrows move." }),
    element("div", { class: "spread" }, preset, apply, Object.keys(keys.own).length ? reset : null),
    ...[...groups].flatMap(([group, rows]) => [
      element("h2", { text: group }),
      element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": group }, element("table", {}, element("tbody", {}, ...rows))),
    ]),
    ...mouse(),
  );
}

/**
 * @param {Frame} frame
 * @param {string} action
 */
function row(frame, action) {
  const { label } = ACTIONS[action];
  const shown = frame.keys.of(action).flatMap((key, place) => [place ? " or " : "", element("kbd", { text: key })]);
  const change = element("button", { text: "Change", "aria-label": `Change the key of: ${label}`, onclick: () => listen(frame, action, change) });
  return element("tr", {}, element("th", { scope: "row", text: label }), element("td", {}, ...shown), element("td", { class: "number" }, change));
}

/**
 * Take the next key press for an action.
 * @param {Frame} frame
 * @param {string} action
 * @param {HTMLButtonElement} button
 */
function listen(frame, action, button) {
  button.textContent = "Press a key";
  frame.keys.active = false;
  /** @param {KeyboardEvent} event */
  const take = (event) => {
    if (["Control", "Shift", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault();
    window.removeEventListener("keydown", take, true);
    frame.keys.active = true;
    button.textContent = "Change";
    const key = nameOf(event);
    if (key === "Escape") return;
    const problem = refusal(key) || taken(frame, action, key);
    if (problem) toast(problem, { problem: true });
    else save(frame, { ...frame.keys.own, [action]: [key] });
  };
  window.addEventListener("keydown", take, true);
}

/**
 * Two actions of one page must not share a key; question pages and the others may.
 * @param {Frame} frame
 * @param {string} action
 * @param {string} key
 */
function taken(frame, action, key) {
  const questions = (/** @type {string} */ name) => ACTIONS[name].group === "Questions";
  const other = Object.keys(ACTIONS).find((name) => name !== action && questions(name) === questions(action) && frame.keys.of(name).includes(key));
  return other ? `${key} already means: ${ACTIONS[other].label}` : "";
}

/**
 * @param {Frame} frame
 * @param {Record<string, string[]>} own
 */
async function save(frame, own) {
  try {
    await request("PUT", "/api/session/keys", own);
    frame.keys.own = own;
    show(frame);
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), { problem: true });
  }
}

function mouse() {
  const rows = [
    ["Wheel", "zoom about the cursor"],
    ["Drag the image, Space with a drag, middle button", "move the image"],
    ["Click", "select the smallest object there"],
    ["Double click", "centre the object and edit it"],
    ["Edit: drag, or two clicks", "draw a new boundary from one point of the old one to another"],
    ["Brush: start inside the mask, or outside it", "add, or remove; with Ctrl always remove"],
    ["Alt and wheel", "size of the brush"],
    ["New: click the first point again", "close the outline"],
  ];
  return [
    element("h2", { text: "Mouse and touch" }),
    element("table", {}, element("tbody", {}, ...rows.map(([what, does]) => element("tr", {}, element("th", { scope: "row", text: what }), element("td", { text: does }))))),
  ];
}
