// @ts-check
/**
 * Every action that has a key: its name, its keys, and who handles it at the moment.
 *
 * Keys are written as people read them: "N", "Ctrl+Z", "Shift+X", "Space", "PageDown", "ArrowLeft", "?". "Ctrl" is the command
 * key on a Mac. A key without a modifier is never one that the browser keeps for itself.
 */

/**
 * @typedef {object} Action
 * @property {string} label  What it does, as in tooltips and on the help page.
 * @property {string} group  The heading it stands under on the help page.
 * @property {string[]} keys
 */

/** @type {Record<string, Action>} */
export const ACTIONS = {
  "tool.select": { group: "Tools", label: "Select", keys: ["1"] },
  "tool.edit": { group: "Tools", label: "Edit the boundary", keys: ["2"] },
  "tool.brush": { group: "Tools", label: "Brush", keys: ["3"] },
  "tool.new": { group: "Tools", label: "New object", keys: ["4", "N"] },
  "tool.leave": { group: "Tools", label: "Leave the tool, or fit the image", keys: ["Escape"] },
  "image.next": { group: "Images", label: "Next image", keys: ["PageDown"] },
  "image.previous": { group: "Images", label: "Previous image", keys: ["PageUp"] },
  "view.up": { group: "View", label: "Move up", keys: ["W", "ArrowUp"] },
  "view.left": { group: "View", label: "Move left", keys: ["A", "ArrowLeft"] },
  "view.down": { group: "View", label: "Move down", keys: ["S", "ArrowDown"] },
  "view.right": { group: "View", label: "Move right", keys: ["D", "ArrowRight"] },
  "view.out": { group: "View", label: "Zoom out", keys: ["Q", "-"] },
  "view.in": { group: "View", label: "Zoom in", keys: ["E", "+", "="] },
  "view.focus": { group: "View", label: "Centre the object", keys: ["F"] },
  "view.fit": { group: "View", label: "Fit the image", keys: ["Home"] },
  "view.darker": { group: "View", label: "Darker", keys: [","] },
  "view.brighter": { group: "View", label: "Brighter", keys: ["."] },
  "view.hide": { group: "View", label: "Hide masks: tap to toggle, hold to peek", keys: ["H"] },
  "view.invert": { group: "View", label: "Dim the background instead of tinting masks", keys: ["I"] },
  "view.recolour": { group: "View", label: "Other colours", keys: ["C"] },
  "view.edges": { group: "View", label: "Show the edges of the image", keys: ["V"] },
  "edit.undo": { group: "Changes", label: "Undo", keys: ["U", "Ctrl+Z"] },
  "edit.redo": { group: "Changes", label: "Redo", keys: ["Y", "Ctrl+Y", "Ctrl+Shift+Z"] },
  "edit.delete": { group: "Changes", label: "Delete the object", keys: ["Delete"] },
  "edit.backspace": { group: "Changes", label: "Select: delete the object. Edit: delete the nearest contour. New: last point", keys: ["Backspace"] },
  "edit.other": { group: "Changes", label: "Keep the other part of the boundary", keys: ["X"] },
  "edit.commit": { group: "Changes", label: "Commit the trace", keys: ["Space", "Enter"] },
  "edit.snap": { group: "Changes", label: "Snap to the edges of the image", keys: ["G"] },
  "edit.fill": { group: "Changes", label: "Fill holes", keys: ["O"] },
  "edit.largest": { group: "Changes", label: "Keep the largest part", keys: ["L"] },
  "edit.grow": { group: "Changes", label: "Grow by one pixel", keys: ["Shift+G"] },
  "edit.shrink": { group: "Changes", label: "Shrink by one pixel", keys: ["Shift+S"] },
  "edit.rename": { group: "Changes", label: "Other category", keys: ["R"] },
  "brush.smaller": { group: "Brush", label: "Smaller brush", keys: ["9", "["] },
  "brush.larger": { group: "Brush", label: "Larger brush", keys: ["0", "]"] },
  "list.next": { group: "Objects", label: "Next object", keys: ["J"] },
  "list.previous": { group: "Objects", label: "Previous object", keys: ["K"] },
  "cursor.toggle": { group: "Keyboard cursor", label: "Draw with the keyboard: arrows move the cross, Enter presses", keys: ["M"] },
  "cursor.up": { group: "Keyboard cursor", label: "Cross up by one pixel", keys: ["Shift+ArrowUp"] },
  "cursor.left": { group: "Keyboard cursor", label: "Cross left by one pixel", keys: ["Shift+ArrowLeft"] },
  "cursor.down": { group: "Keyboard cursor", label: "Cross down by one pixel", keys: ["Shift+ArrowDown"] },
  "cursor.right": { group: "Keyboard cursor", label: "Cross right by one pixel", keys: ["Shift+ArrowRight"] },
  "answer.yes": { group: "Questions", label: "Yes", keys: ["Y"] },
  "answer.no": { group: "Questions", label: "No", keys: ["N"] },
  "answer.other": { group: "Questions", label: "Not part of this cluster", keys: ["P"] },
  "answer.toggle": { group: "Questions", label: "Change the answer", keys: ["Space"] },
  "answer.wrong_class": { group: "Questions", label: "No: wrong class", keys: ["W"] },
  "answer.bad_boundary": { group: "Questions", label: "No: bad boundary", keys: ["B"] },
  "answer.two_objects": { group: "Questions", label: "No: two objects", keys: ["T"] },
  "answer.partial": { group: "Questions", label: "No: partial", keys: ["R"] },
  "question.next": { group: "Questions", label: "Next mask", keys: ["ArrowRight"] },
  "question.previous": { group: "Questions", label: "Previous mask", keys: ["ArrowLeft"] },
  "question.below": { group: "Questions", label: "Mask below (grid)", keys: ["ArrowDown"] },
  "question.above": { group: "Questions", label: "Mask above (grid)", keys: ["ArrowUp"] },
  "question.layout": { group: "Questions", label: "Filmstrip or grid", keys: ["G"] },
  "question.whole": { group: "Questions", label: "Hold: the whole image", keys: ["Z"] },
  "question.hide": { group: "Questions", label: "Hold: hide the mask", keys: ["H"] },
  "question.examples": { group: "Questions", label: "Definition and examples", keys: ["E"] },
  "submit": { group: "Everywhere", label: "Submit", keys: ["Ctrl+Enter"] },
  "help": { group: "Everywhere", label: "All keys", keys: ["?"] },
};
for (let cell = 1; cell <= 9; cell += 1) {
  ACTIONS[`cell.${cell}`] = { group: "Questions", label: `Change the answer of mask ${cell} of the row (grid)`, keys: [`${cell}`] };
}

/** Sets of keys that replace the first ones, by name. @type {Record<string, Record<string, string[]>>} */
export const PRESETS = {
  labelmelite: {},
  desktop: {
    "image.next": ["D", "PageDown"],
    "image.previous": ["A", "PageUp"],
    "view.left": ["ArrowLeft"],
    "view.right": ["ArrowRight"],
  },
};

/** Keys that browsers keep for themselves. */
const RESERVED = new Set([
  "Ctrl+W", "Ctrl+T", "Ctrl+N", "Ctrl+Shift+N", "Ctrl+Shift+T", "Ctrl+L", "Ctrl+R", "Ctrl+F", "Ctrl+P", "Ctrl+Q", "F5", "F11", "F12", "Tab",
]);

/** Keys that do something of their own where the focus is on a control. */
const NATIVE = new Set(["Space", "Enter"]);

/** Keys that turn pages everywhere; in a list of choices they would choose another one unseen. */
const PAGING = new Set(["PageUp", "PageDown"]);

/** Keys that work while somebody types into a field. */
const WHILE_TYPING = new Set(["Escape", "Ctrl+Enter"]);

/**
 * Return a key press as it is written in `ACTIONS`.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function nameOf(event) {
  let key = event.key === " " ? "Space" : event.key;
  const isSymbol = key.length === 1 && key.toUpperCase() === key.toLowerCase();
  if (key.length === 1) key = key.toUpperCase();
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  // "?" already is what Shift makes of a key; "Shift+?" would be the same twice.
  if (event.shiftKey && !isSymbol) parts.push("Shift");
  parts.push(key);
  return parts.join("+");
}

/**
 * Say why a key cannot be given to an action; the empty text if it can.
 * @param {string} key
 * @returns {string}
 */
export function refusal(key) {
  if (RESERVED.has(key)) return `${key} belongs to the browser.`;
  if (["Ctrl", "Alt", "Shift", "Control", "Meta", "Dead", "Unidentified"].includes(key)) return "Press a key that is no modifier alone.";
  return "";
}

/**
 * @typedef {object} Handling
 * @property {(event: KeyboardEvent) => void} down
 * @property {((event: KeyboardEvent) => void)=} up
 * @property {boolean} repeat
 */

/** The keys of a page: from a key press to the action that handles it here. */
export class Keys {
  /**
   * @param {Record<string, string[]>=} own  A person's own keys, by action; they replace those of `ACTIONS`.
   * @param {EventTarget=} target
   */
  constructor(own = {}, target = window) {
    this.own = own;
    /** @type {Map<string, Handling>} */
    this.handlers = new Map();
    /** What is held down, so that its end finds the handler of its beginning. @type {Map<string, Handling>} */
    this.held = new Map();
    /** Whether keys are passed on; a dialogue switches them off. */
    this.active = true;
    target.addEventListener("keydown", (event) => this.press(/** @type {KeyboardEvent} */ (event)));
    target.addEventListener("keyup", (event) => this.release(/** @type {KeyboardEvent} */ (event)));
    window.addEventListener("blur", () => this.releaseAll());
  }

  /**
   * Let a function handle an action on this page; the last one counts.
   * @param {string} action
   * @param {(event: KeyboardEvent) => void} down
   * @param {{repeat?: boolean, up?: (event: KeyboardEvent) => void}=} options  `repeat`: also while the key is held.
   */
  on(action, down, { repeat = false, up } = {}) {
    if (!(action in ACTIONS)) throw new Error(`no action is called ${action}`);
    this.handlers.set(action, { down, up, repeat });
  }

  /** @param {string} action */
  off(action) {
    this.handlers.delete(action);
  }

  /** Let no action be handled any more but some, as when a task is over; what is held down ends. @param {...string} kept */
  clear(...kept) {
    this.releaseAll();
    for (const action of this.handlers.keys()) if (!kept.includes(action)) this.off(action);
  }

  /**
   * Return the keys of an action.
   * @param {string} action
   * @returns {string[]}
   */
  of(action) {
    return this.own[action] ?? ACTIONS[action].keys;
  }

  /**
   * Return what a tooltip says: the action and its keys.
   * @param {string} action
   * @returns {string}
   */
  tooltip(action) {
    return `${ACTIONS[action].label} (${this.of(action).join(" or ")})`;
  }

  /**
   * Give a control its tooltip, and tell assistive technology which keys work.
   * @param {HTMLElement} element
   * @param {string} action
   */
  describe(element, action) {
    element.title = this.tooltip(action);
    element.setAttribute("aria-keyshortcuts", this.of(action).map((key) => key.replace("Ctrl", "Control")).join(" "));
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (!this.active || event.isComposing || event.defaultPrevented) return;
    const key = nameOf(event);
    if (this.belongsToControl(event, key)) return;
    for (const [action, handling] of this.handlers) {
      if (!this.of(action).includes(key)) continue;
      event.preventDefault();
      if (event.repeat && !handling.repeat) return;
      if (!event.repeat) this.held.set(event.code, handling);
      handling.down(event);
      return;
    }
  }

  /** @param {KeyboardEvent} event */
  release(event) {
    const handling = this.held.get(event.code);
    if (!handling) return;
    this.held.delete(event.code);
    handling.up?.(event);
  }

  releaseAll() {
    const held = [...this.held.values()];
    this.held.clear();
    for (const handling of held) handling.up?.(new KeyboardEvent("keyup"));
  }

  /**
   * Return whether a key means something to the control that has the focus: text to a field, a click to a button.
   * @param {KeyboardEvent} event
   * @param {string} key
   */
  belongsToControl(event, key) {
    const element = event.target instanceof Element ? event.target : null;
    if (!element || element === document.body) return false;
    if (element.matches("select") && PAGING.has(key)) return false;
    if (element.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]):not([type=button]), textarea, select, [contenteditable=true]")) {
      return !WHILE_TYPING.has(key);
    }
    if (element.matches("input[type=range]") && key.startsWith("Arrow")) return true;
    // Whoever came here by keyboard wants the button; after a click the page's own keys go on.
    return NATIVE.has(key) && element.matches("button:focus-visible, a:focus-visible, summary:focus-visible, input:focus-visible, [role=button]:focus-visible");
  }
}
