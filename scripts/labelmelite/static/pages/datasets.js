// @ts-check
/** The data sets of this server, and importing one that exists. */

import { request } from "../net/api.js";
import { element, number, start, toast } from "./frame.js";

/** @typedef {{id: number, name: string, kind: string, images: number, objects: number, finished: number}} Dataset */

const KINDS = { coco: "COCO file", folder: "folder of images", loop: "iteration of the loop" };

/** @param {Dataset} one */
function card(one) {
  return element("li", {},
    element("a", { class: "card", href: `/d/${one.id}` },
      element("div", { class: "text" },
        element("div", { class: "title", text: one.name }),
        element("div", { class: "faint", text: `${KINDS[/** @type {keyof typeof KINDS} */ (one.kind)] ?? one.kind}: ${number(one.images)} images, ${number(one.objects)} objects` }),
        element("progress", { max: Math.max(1, one.images), value: one.finished, "aria-label": `images finished in ${one.name}` }),
        element("div", { class: "faint", text: `${number(one.finished)} of ${number(one.images)} images finished` }),
      ),
    ),
  );
}

/** @param {string[]} places  Folders and URL bases that may hold images. */
function importForm(places) {
  const form = element("form", { class: "panel" },
    element("h2", { text: "Import a data set" }),
    element("p", { class: "faint", text: "A COCO file of objects, and the folder or address that holds its images. Records that cannot be used are listed; the rest is imported." }),
    element("div", { class: "spread" },
      element("label", {}, "Name", element("input", { name: "name", required: true, maxlength: "120" })),
      element("label", {}, "COCO file", element("input", { name: "annotations", type: "file", accept: ".json,application/json", required: true })),
      element("label", {}, "Images", element("select", { name: "images", required: true }, ...places.map((place) => element("option", { value: place, text: place })))),
      element("button", { class: "main", text: "Import" }),
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
    button.disabled = true;
    try {
      const made = await request("POST", "/api/datasets", new FormData(form));
      if (made.skipped_count) showSkipped(form, made);
      else window.location.assign(`/d/${made.id}`);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    }
    button.disabled = false;
  });
  return form;
}

/**
 * @param {HTMLElement} form
 * @param {{id: number, skipped_count: number, skipped: {record: string, reason: string}[]}} made
 */
function showSkipped(form, made) {
  form.append(
    element("p", { role: "status", text: `Imported. ${number(made.skipped_count)} records were left out:` }),
    element("ul", {}, ...made.skipped.slice(0, 100).map((one) => element("li", { text: `${one.record}: ${one.reason}` }))),
    element("a", { class: "button main", href: `/d/${made.id}`, text: "Open the data set" }),
  );
}

await start(async ({ main, session }) => {
  /** @type {Dataset[]} */
  const datasets = await request("GET", "/api/datasets");
  const list = datasets.length
    ? element("ul", { class: "cards" }, ...datasets.map(card))
    : element("div", { class: "message" }, element("p", { text: "This server has no data set yet." }));
  main.replaceChildren(element("h1", { text: "Data sets" }), list);
  if (session.annotator.role !== "owner") return;
  const places = await request("GET", "/api/roots");
  if (places.length) main.append(importForm(places));
});
