// @ts-check
/** How the masks of a task stand on the page: a filmstrip with one in the middle, or a grid. */

import { element } from "../pages/frame.js";
import { Cell } from "./cell.js";

/** @typedef {import("./sheet.js").Sheet} Sheet */

/** How many masks of a filmstrip are loaded ahead. */
const AHEAD = 3;

/** One mask large, two neighbours on each side. */
export class Filmstrip {
  /**
   * @param {Sheet} sheet
   * @param {HTMLElement} stage
   * @param {(place: number) => void} onPick
   */
  constructor(sheet, stage, onPick) {
    this.sheet = sheet;
    this.stage = stage;
    this.cells = makeCells(sheet, onPick);
  }

  /** Where the present mask stands on screen; masks are far, beside it, or in the middle. */
  show() {
    const { now, length } = this.sheet;
    const shown = [];
    for (let place = now - 2; place <= now + 2; place += 1) {
      const cell = this.cells[place];
      const distance = Math.abs(place - now);
      if (!cell) {
        // An empty place keeps the present mask in the middle.
        shown.push(element("div", { class: `cell empty ${distance === 1 ? "beside" : "far"}`, "aria-hidden": "true" }));
        continue;
      }
      cell.element.classList.toggle("now", distance === 0);
      cell.element.classList.toggle("beside", distance === 1);
      cell.element.classList.toggle("far", distance === 2);
      cell.showAnswer(this.sheet.given[place]);
      cell.draw();
      shown.push(cell.element);
    }
    for (let place = now + 3; place <= Math.min(now + AHEAD, length - 1); place += 1) this.cells[place].draw();
    this.stage.className = "stage filmstrip";
    this.stage.replaceChildren(...shown);
  }

  /** Masks do not stand above each other here. @param {number} _rows */
  moved(_rows) {
    return this.sheet.now;
  }

  columns() {
    return 1;
  }
}

/** Many masks at once. */
export class Grid {
  /**
   * @param {Sheet} sheet
   * @param {HTMLElement} stage
   * @param {(place: number) => void} onPick
   */
  constructor(sheet, stage, onPick) {
    this.sheet = sheet;
    this.stage = stage;
    this.cells = makeCells(sheet, onPick);
    this.placed = false;
  }

  show() {
    if (!this.placed) {
      this.stage.className = "stage grid";
      this.stage.replaceChildren(...this.cells.map((cell) => cell.element));
      this.placed = true;
    }
    this.stage.style.setProperty("--columns", String(this.columns()));
    this.cells.forEach((cell, place) => {
      cell.element.classList.toggle("now", place === this.sheet.now);
      cell.showAnswer(this.sheet.given[place]);
      cell.draw();
    });
    this.cells[this.sheet.now]?.element.scrollIntoView({ block: "nearest" });
  }

  /** Return the place so many rows further. @param {number} rows */
  moved(rows) {
    const place = this.sheet.now + rows * this.columns();
    return place >= 0 && place < this.sheet.length ? place : this.sheet.now;
  }

  columns() {
    const width = this.stage.clientWidth;
    return width < 520 ? 1 : width < 900 ? 2 : width < 1250 ? 3 : width < 1700 ? 5 : 6;
  }
}

/**
 * @param {Sheet} sheet
 * @param {(place: number) => void} onPick
 */
function makeCells(sheet, onPick) {
  return sheet.task.items.map((item, place) => {
    const cell = new Cell(item, `${place + 1} of ${sheet.length}`);
    cell.element.addEventListener("click", () => onPick(place));
    return cell;
  });
}
