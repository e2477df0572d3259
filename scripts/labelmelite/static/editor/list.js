// @ts-check
/** The list of annotations: a button for each object, with a filter by name. */

import { element, number } from "../pages/frame.js";

/** @typedef {import("./editor.js").Editor} Editor */

export class List {
  /** @param {Editor} editor */
  constructor(editor) {
    this.editor = editor;
    /** @type {Map<string, {row: HTMLLIElement, button: HTMLButtonElement, said: string}>} */
    this.rows = new Map();
    this.count = element("span", { class: "faint" });
    this.filter = element("input", { type: "search", placeholder: "Filter by category", "aria-label": "Filter the list by category" });
    this.filter.addEventListener("input", () => this.update());
    this.list = element("ul");
    this.root = element("aside", { class: "objects", "aria-label": "Objects" },
      element("div", { class: "objects-head" }, element("h2", { text: "Objects" }), this.count),
      this.filter,
      this.list);
    /** @type {string | null} */
    this.selected = null;
  }

  update() {
    const { scene } = this.editor;
    for (const [id, { row }] of this.rows) {
      if (scene.items.has(id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    const wanted = this.filter.value.trim().toLowerCase();
    let shown = 0;
    for (const item of scene.items.values()) {
      const one = this.rows.get(item.id) ?? this.makeRow(item.id);
      const fits = item.category.toLowerCase().includes(wanted);
      shown += fits ? 1 : 0;
      const current = item.id === scene.selected;
      const said = `${item.category}\n${item.area}\n${current}\n${this.editor.colourOf(item.id)}`;
      if (one.row.hidden === fits) one.row.hidden = !fits;
      if (one.said !== said) this.fill(item.id, said, current);
    }
    const total = scene.items.size;
    const text = shown === total ? number(total) : `${number(shown)} of ${number(total)}`;
    if (this.count.textContent !== text) this.count.textContent = text;
    if (this.selected !== scene.selected) {
      this.selected = scene.selected;
      if (this.selected !== null) this.rows.get(this.selected)?.row.scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {string} id */
  makeRow(id) {
    const { editor } = this;
    const button = element("button", {
      onclick: (/** @type {MouseEvent} */ event) => {
        editor.select(id);
        // The second click of two, and Enter, centre the object.
        if (event.detail === 2) editor.focus();
      },
      onmouseenter: () => editor.setHovered(id),
      onmouseleave: () => editor.setHovered(null),
    });
    const row = element("li", {}, button);
    const one = { row, button, said: "" };
    this.rows.set(id, one);
    this.list.append(row);
    return one;
  }

  /** @param {string} id @param {string} said @param {boolean} current */
  fill(id, said, current) {
    const one = this.rows.get(id);
    const item = this.editor.scene.item(id);
    if (!one || !item) return;
    one.said = said;
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = this.editor.colourOf(id);
    const score = item.score === null ? "" : ` · ${item.score.toFixed(2)}`;
    one.button.replaceChildren(swatch, element("span", { class: "category", text: item.category }), element("span", { class: "faint", text: `${number(item.area)} px${score}` }));
    if (current) one.button.setAttribute("aria-current", "true");
    else one.button.removeAttribute("aria-current");
  }
}
