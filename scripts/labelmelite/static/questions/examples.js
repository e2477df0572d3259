// @ts-check
/** What a category means, with masks that are good and masks that are not. */

import { element } from "../pages/frame.js";
import { Cell } from "./cell.js";

/**
 * Open the dialogue; Escape closes it.
 * @param {import("./sheet.js").Task} task
 * @param {import("../keys.js").Keys} keys
 */
export function showExamples(task, keys) {
  const { category, examples, rule } = task;
  const dialog = element("dialog", { "aria-labelledby": "examples-title" },
    element("div", { class: "spread" },
      element("h1", { id: "examples-title", text: category.name }),
      element("button", { class: "push", text: "Close", type: "button", onclick: () => dialog.close() }),
    ),
    element("p", { text: category.definition ?? "This category has no definition in its data set." }),
    element("p", { text: rule }),
    ...section("✓ These are good", examples.yes),
    ...section("✗ These are not", examples.no),
  );
  dialog.addEventListener("close", () => {
    keys.active = true;
    dialog.remove();
  });
  document.body.append(dialog);
  keys.active = false;
  dialog.showModal();
}

/**
 * @param {string} title
 * @param {import("./sheet.js").Item[]} items
 */
function section(title, items) {
  if (!items.length) return [element("h2", { text: title }), element("p", { class: "faint", text: "There are no examples yet." })];
  const cells = items.map((item, place) => {
    const cell = new Cell(item, `${place + 1}`);
    cell.draw();
    return cell.element;
  });
  return [element("h2", { text: title }), element("div", { class: "examples" }, ...cells)];
}
