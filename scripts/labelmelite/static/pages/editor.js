// @ts-check
/** One image of a data set with its objects: the main interface. */

import { askCategory } from "../editor/dialogs.js";
import { actionButton } from "../editor/actions.js";
import { List } from "../editor/list.js";
import { Saver } from "../editor/saver.js";
import { loadPicture, makeWorkspace } from "../editor/workspace.js";
import { replay } from "../geometry/history.js";
import { request, withQuery } from "../net/api.js";
import { icon } from "../editor/icons.js";
import { element, number, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {{id: number, file_name: string, width: number, height: number, state: string, previous: number | null, next: number | null, objects: any[]}} Shown */
/** @typedef {{id: number, name: string, objects: number}} Category */

const STATES = { untouched: "○ untouched", started: "◐ started", finished: "● finished" };
const AT_ONCE = 500;

await start(async (frame) => {
  const [, , datasetText, imageText] = window.location.pathname.split("/");
  const dataset = Number(datasetText);
  const readOnly = frame.session.annotator.role === "reader";
  const base = `/api/datasets/${dataset}`;
  /** @type {Category[]} */
  const categories = await request("GET", `${base}/categories`);
  /** @type {Shown} */
  let image;
  /** @type {Saver | undefined} */
  let saver;
  /** Images with the chosen category, in order; null: all. @type {number[] | null} */
  let chosen = null;
  /** Who turns the page while the images are still looked for waits for them. @type {Promise<void>} */
  let searching = Promise.resolve();

  const { editor, host, tools, foot } = makeWorkspace(frame, {
    tools: readOnly ? ["select"] : ["select", "edit", "brush", "new"],
    readOnly,
    askCategory: async (suggestion) => {
      const name = await askCategory(frame.keys, suggestion, categories);
      if (name && !categories.some((one) => one.name === name)) categories.push({ id: 0, name, objects: 1 });
      return name;
    },
    changed: (change, reference, tool, seconds) => {
      saver?.save(change, reference, tool, seconds);
      if (state.value === "untouched") state.value = "started";
    },
    shown: () => list.update(),
  });
  const list = new List(editor);
  const title = element("h1", { class: "file" });
  const state = element("select", { "aria-label": "State of the image", disabled: readOnly }, ...Object.entries(STATES).map(([value, text]) => element("option", { value, text })));
  const category = element("select", { "aria-label": "Only images with this category" },
    element("option", { value: "", text: "every category" }),
    ...categories.filter((one) => one.objects).map((one) => element("option", { value: String(one.id), text: `${one.name} (${number(one.objects)})` })));
  const previous = actionButton(frame.keys, "image.previous", "previous", "Previous image", () => go(-1), "plain");
  const next = actionButton(frame.keys, "image.next", "next", "Next image", () => go(1), "plain");
  const showList = element("button", { class: "plain show-list", "aria-expanded": "false", "aria-label": "Objects", title: "Objects" }, icon("list"));
  showList.addEventListener("click", () => {
    const open = work.classList.toggle("with-list");
    showList.setAttribute("aria-expanded", String(open));
  });
  const work = element("div", { class: "work" }, tools, host, list.root);
  frame.main.replaceChildren(
    element("div", { class: "image-bar" }, previous, next, title, element("label", { class: "push" }, element("span", { class: "wide-only", text: "Search" }), category), state, showList),
    work,
    foot,
  );
  frame.keys.on("image.previous", () => go(-1));
  frame.keys.on("image.next", () => go(1));
  frame.keys.on("help", () => window.location.assign("/help"));
  state.addEventListener("change", async () => {
    try {
      await request("PUT", `${base}/images/${image.id}/state`, { state: state.value });
    } catch (error) {
      toast(String(error instanceof Error ? error.message : error), { problem: true });
      state.value = image.state;
    }
  });
  category.addEventListener("change", async () => {
    searching = search();
    await searching;
    if (chosen && !chosen.includes(image.id)) await go(1);
  });
  // After a choice with the mouse the keys mean the image again; who chooses by keys stays in the list.
  for (const one of [state, category]) {
    let byKeys = false;
    one.addEventListener("pointerdown", () => { byKeys = false; });
    one.addEventListener("keydown", () => { byKeys = true; });
    one.addEventListener("change", () => byKeys || host.focus());
  }
  window.addEventListener("popstate", () => turn(Number(window.location.pathname.split("/")[3])));

  /** Find the images that hold objects of the chosen category. */
  async function search() {
    chosen = null;
    if (category.value) {
      /** @type {number[]} */
      const found = [];
      for (let total = 1; found.length < total; ) {
        const page = await request("GET", withQuery(`${base}/images`, { category: category.value, offset: found.length, limit: AT_ONCE }));
        total = page.images.length ? page.total : 0;
        found.push(...page.images.map((/** @type {{id: number}} */ one) => one.id));
      }
      chosen = found;
    }
    showNeighbours();
  }

  /** The image after this one, or before it, among those chosen. @param {1 | -1} step @returns {number | null} */
  function neighbour(step) {
    if (!chosen) return step > 0 ? image.next : image.previous;
    const place = chosen.indexOf(image.id);
    if (place >= 0) return chosen[place + step] ?? null;
    const later = chosen.filter((id) => (id - image.id) * step > 0);
    // A loop, for there may be more images than a call takes arguments.
    return later.length ? later.reduce((best, id) => ((id - best) * step < 0 ? id : best)) : (chosen[0] ?? null);
  }

  function showNeighbours() {
    previous.disabled = neighbour(-1) === null;
    next.disabled = neighbour(1) === null;
  }

  /** @param {1 | -1} step */
  async function go(step) {
    await searching;
    const target = neighbour(step);
    if (target === null) {
      editor.say(step > 0 ? "This is the last image." : "This is the first image.");
      return;
    }
    window.history.pushState(null, "", `/d/${dataset}/${target}${window.location.search}`);
    await turn(target);
  }

  /** Show an image; if that fails, the present one stays. @param {number} id */
  async function turn(id) {
    try {
      await show(id);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
      window.history.replaceState(null, "", `/d/${dataset}/${image.id}${window.location.search}`);
    }
  }

  /** Requests overtake each other while somebody turns pages; the last one counts. */
  let latest = 0;

  /** @param {number} id */
  async function show(id) {
    latest += 1;
    const mine = latest;
    host.setAttribute("aria-busy", "true");
    editor.loading = true;
    try {
      // What was done before must be there before the image is read again.
      await frame.outbox.leftBehind;
      await frame.outbox.settled(10_000);
      await saver?.resolved;
      await frame.outbox.settled(10_000);
      const address = `${base}/images/${id}`;
      let unseen = "";
      const pixels = loadPicture(`${address}/pixels`).catch((error) => {
        unseen = error.message;
        return null;
      });
      const [shown, events, picture] = await Promise.all([request("GET", address), request("GET", `${address}/events`), pixels]);
      if (mine !== latest) return;
      if (unseen) toast(unseen, { problem: true });
      image = /** @type {Shown} */ (shown);
      saver = new Saver(editor, frame, { dataset, image: image.id, reload: () => turn(image.id) });
      title.textContent = image.file_name;
      document.title = `${image.file_name} – LabelMeLite`;
      state.value = image.state;
      const names = new Map(image.objects.map((one) => [one.id, one.category]));
      const own = (/** @type {{annotator?: string}} */ event) => event.annotator === frame.session.annotator.id;
      await editor.open({ width: image.width, height: image.height, objects: image.objects, picture, history: replay(events, names, own) });
      showNeighbours();
      editor.say(`${image.file_name}: ${number(image.objects.length)} objects. ${editor.tool.hint}`);
    } finally {
      if (mine === latest) {
        host.removeAttribute("aria-busy");
        editor.loading = false;
      }
    }
  }

  const wanted = new URLSearchParams(window.location.search).get("category");
  if (wanted) category.value = wanted;
  await show(Number(imageText));
  searching = search();
  await searching;
  Object.assign(window, { editor });
});
