// @ts-check
/** The images of a data set, with thumbnails, filters and progress. */

import { request, withQuery } from "../net/api.js";
import { element, number, start } from "./frame.js";

/** @typedef {{id: number, file_name: string, width: number, height: number, objects: number, state: string}} ListedImage */

const AT_ONCE = 60;
const STATES = { untouched: "○ untouched", started: "◐ started", finished: "● finished" };

await start(async ({ main }) => {
  const dataset = window.location.pathname.split("/")[2];
  const [datasets, categories] = await Promise.all([request("GET", "/api/datasets"), request("GET", `/api/datasets/${dataset}/categories`)]);
  const own = datasets.find((/** @type {{id: number}} */ one) => String(one.id) === dataset);
  const address = new URLSearchParams(window.location.search);

  const text = element("input", { type: "search", value: address.get("text") ?? "", placeholder: "part of the name" });
  const category = select("every category", categories.map((/** @type {{id: number, name: string, objects: number}} */ one) => [String(one.id), `${one.name} (${number(one.objects)})`]), address.get("category"));
  const state = select("every state", Object.entries(STATES), address.get("state"));
  const count = element("span", { class: "faint", role: "status" });
  const list = element("ul", { class: "cards" });
  const more = element("button", { text: "Show more", onclick: () => load(list.children.length) });
  main.replaceChildren(
    element("h1", { text: own?.name ?? "Images" }),
    element("form", { class: "spread", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
      element("label", {}, "Name", text),
      element("label", {}, "Category", category),
      element("label", {}, "State", state),
      count,
      element("a", { class: "button push", href: `/api/datasets/${dataset}/export`, download: "", text: "Export as COCO" }),
    ),
    list,
    more,
  );

  /** Requests overtake each other while somebody types; the last one counts. */
  let latest = 0;

  /** @param {number} offset */
  async function load(offset) {
    latest += 1;
    const mine = latest;
    const query = { text: text.value, category: category.value, state: state.value };
    const found = await request("GET", withQuery(`/api/datasets/${dataset}/images`, { ...query, offset, limit: AT_ONCE }));
    if (mine !== latest) return;
    window.history.replaceState(null, "", withQuery(window.location.pathname, query));
    if (offset === 0) list.replaceChildren();
    list.append(...found.images.map((/** @type {ListedImage} */ one) => card(dataset, one)));
    count.textContent = `${number(found.total)} images`;
    more.hidden = list.children.length >= found.total;
    if (!found.total) list.replaceChildren(element("li", { class: "faint", text: "No image is like that." }));
  }

  text.addEventListener("input", () => load(0));
  category.addEventListener("change", () => load(0));
  state.addEventListener("change", () => load(0));
  await load(0);
});

/**
 * @param {string} dataset
 * @param {ListedImage} one
 */
function card(dataset, one) {
  const picture = element("img", { src: `/api/datasets/${dataset}/images/${one.id}/pixels?side=320`, alt: "", loading: "lazy", width: String(one.width), height: String(one.height) });
  picture.addEventListener("error", () => picture.replaceWith(element("p", { class: "text faint", text: "This image cannot be shown." })), { once: true });
  return element("li", {},
    element("a", { class: "card", href: `/d/${dataset}/${one.id}` },
      picture,
      element("div", { class: "text" },
        element("div", { class: "title", text: one.file_name }),
        element("div", { class: "faint", text: `${number(one.objects)} objects, ${STATES[/** @type {keyof typeof STATES} */ (one.state)] ?? one.state}` }),
      ),
    ),
  );
}

/**
 * @param {string} all  What the first choice says.
 * @param {[string, string][]} choices
 * @param {string | null} chosen
 */
function select(all, choices, chosen) {
  const made = element("select", {}, element("option", { value: "", text: all }), ...choices.map(([value, text]) => element("option", { value, text })));
  made.value = chosen ?? "";
  return made;
}
