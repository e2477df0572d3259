// @ts-check
/** Questions to the person that stop everything else until they are answered. */

import { element } from "../pages/frame.js";

/** @typedef {import("../keys.js").Keys} Keys */

/**
 * Show a dialogue; the page's keys rest meanwhile.
 * @template T
 * @param {Keys} keys
 * @param {T} otherwise the answer when it is closed with Escape
 * @param {(answer: (value: T) => void) => (Node | string)[]} content
 * @returns {Promise<T>}
 */
function ask(keys, otherwise, content) {
  return new Promise((resolve) => {
    let asking = true;
    const dialog = element("dialog", { class: "ask" });
    // Not only once the browser tells of the closed dialogue: the next key may be pressed before that.
    const answer = (/** @type {T} */ value) => {
      if (!asking) return;
      asking = false;
      dialog.close();
      dialog.remove();
      keys.active = true;
      resolve(value);
    };
    dialog.append(...content(answer));
    dialog.addEventListener("close", () => answer(otherwise));
    document.body.append(dialog);
    keys.active = false;
    dialog.showModal();
  });
}

/**
 * Ask for a category; known names complete what is typed.
 * @param {Keys} keys
 * @param {string} suggestion
 * @param {{name: string, objects: number}[]} known
 * @returns {Promise<string | null>}
 */
export function askCategory(keys, suggestion, known) {
  return ask(keys, /** @type {string | null} */ (null), (answer) => {
    const input = element("input", { type: "text", id: "category-name", list: "category-names", maxlength: "200", autocomplete: "off", required: true });
    input.value = suggestion;
    const form = element("form", { method: "dialog" },
      element("label", { for: "category-name", text: "What is it?" }),
      input,
      element("datalist", { id: "category-names" }, ...known.map(({ name }) => element("option", { value: name }))),
      element("div", { class: "often", role: "group", "aria-label": "Often used" },
        ...often(known).map(({ name }) => element("button", { type: "button", text: name, onclick: () => answer(name) }))),
      element("div", { class: "answers" },
        element("button", { type: "button", text: "Back", onclick: () => answer(null) }),
        element("button", { class: "main", text: "Use this name" })),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = input.value.trim().replace(/\s+/g, " ");
      if (name) answer(name);
    });
    requestAnimationFrame(() => input.select());
    return [form];
  });
}

/** @param {{name: string, objects: number}[]} known */
function often(known) {
  return [...known].sort((a, b) => b.objects - a.objects).slice(0, 8);
}

/**
 * @param {Keys} keys
 * @param {string} question
 * @param {string} yes what the button says that does it
 * @returns {Promise<boolean>}
 */
export function confirm(keys, question, yes) {
  return ask(keys, false, (answer) => [
    element("p", { text: question }),
    element("div", { class: "answers" },
      element("button", { text: "No, leave it", onclick: () => answer(false) }),
      element("button", { class: "main", text: yes, onclick: () => answer(true) })),
  ]);
}

/**
 * Two changed one object; which of both shall stand.
 * @param {Keys} keys
 * @param {string} what
 * @param {boolean} deleted whether the other one deleted it
 * @returns {Promise<"mine" | "theirs">}
 */
export function askConflict(keys, what, deleted) {
  const happened = deleted ? "was deleted" : "was changed";
  return ask(keys, /** @type {"mine" | "theirs"} */ ("theirs"), (answer) => [
    element("h2", { text: `The ${what} ${happened} somewhere else` }),
    element("p", { text: `Somebody, or you in another tab, was faster: the object ${happened} after this page loaded it. Which state shall stand? The other one stays in the history.` }),
    element("div", { class: "answers" },
      element("button", { text: "Keep mine", onclick: () => answer("mine") }),
      element("button", { class: "main", text: "Take theirs", onclick: () => answer("theirs") })),
  ]);
}
