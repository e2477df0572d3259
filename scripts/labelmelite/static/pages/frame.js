// @ts-check
/** What all pages share: the header, who is signed in, whether everything is saved, and short messages. */

import { ApiError, getSession } from "../net/api.js";
import { Outbox } from "../net/queue.js";
import { Keys } from "../keys.js";

/** @typedef {import("../net/api.js").Session} Session */

/**
 * @typedef {object} Frame
 * @property {Session} session
 * @property {Keys} keys
 * @property {Outbox} outbox
 * @property {HTMLElement} main
 */

/** Pages of the header; `needs` names what the server must have. @type {{path: string, name: string, needs: "asks" | "loop" | null, roles: string[]}[]} */
const PLACES = [
  { path: "/", name: "Data sets", needs: null, roles: ["owner", "annotator", "reader"] },
  { path: "/questions", name: "Questions", needs: "asks", roles: ["owner", "annotator"] },
  { path: "/edit", name: "Edit", needs: "asks", roles: ["owner", "annotator"] },
  { path: "/review", name: "My answers", needs: "loop", roles: ["owner", "annotator"] },
  { path: "/tree", name: "Clusters", needs: "loop", roles: ["owner", "reader"] },
  { path: "/map", name: "Map", needs: "loop", roles: ["owner", "reader"] },
  { path: "/progress", name: "Progress", needs: "loop", roles: ["owner", "reader", "annotator"] },
  { path: "/help", name: "Keys", needs: null, roles: ["owner", "annotator", "reader"] },
];

/**
 * Make an element; text goes in as text, never as HTML.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>=} properties  Attributes; `class`, `text`, `onclick` and the like as well.
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = String(value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/**
 * Return the element with an id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/**
 * Show a short message; problems stay longer.
 * @param {string} text
 * @param {{problem?: boolean}=} options
 */
export function toast(text, { problem = false } = {}) {
  const one = element("div", { class: problem ? "toast problem" : "toast", role: problem ? "alert" : "status", text });
  byId("toasts").append(one);
  window.setTimeout(() => one.remove(), problem ? 12000 : 5000);
}

/**
 * Say something to those who do not see the page.
 * @param {string} text
 */
export function announce(text) {
  byId("live").textContent = text;
}

/**
 * Draw the header and say who is signed in; on a page for nobody in particular `main` says how to sign in.
 * @param {(frame: Frame) => void | Promise<void>} page  Fills the page.
 * @param {() => Promise<void>=} before  What must go well before it is known who is signed in.
 */
export async function start(page, before = async () => {}) {
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  main.id = "main";
  main.tabIndex = -1;
  document.body.append(
    element("div", { class: "toasts", id: "toasts" }),
    element("div", { class: "hidden-text", id: "live", "aria-live": "polite" }),
  );
  try {
    await before();
    const session = await getSession();
    const saving = element("span", { class: "saving", role: "status" });
    document.body.prepend(header(session, saving));
    const outbox = new Outbox(session.annotator.id, (waiting, error) => {
      saving.textContent = waiting ? `${waiting} not saved yet` : "saved";
      saving.classList.toggle("failing", error !== null);
      saving.title = error ? error.message : "";
    }, (count, message) => {
      const what = count === 1 ? "One change that an earlier page left is" : `${count} changes that an earlier page left are`;
      toast(`${what} not saved: ${message}`, { problem: true });
    });
    await page({ session, keys: new Keys(session.keys), outbox, main });
  } catch (error) {
    showProblem(main, error);
  }
}

/**
 * Put a problem where the page would be.
 * @param {HTMLElement} main
 * @param {unknown} error
 */
export function showProblem(main, error) {
  const text = error instanceof Error ? error.message : String(error);
  const signIn = error instanceof ApiError && error.code === "sign_in";
  main.replaceChildren(
    element("div", { class: "message", role: "alert" },
      element("h1", { text: signIn ? "Please sign in" : "This page cannot be shown" }),
      element("p", { text: signIn ? "Open the link that you were sent, or the address that `segloop label` printed." : text }),
      element("p", {}, element("button", { text: "Try again", onclick: () => window.location.reload() })),
    ),
  );
  if (!(error instanceof ApiError)) console.error(error);
}

/**
 * @param {Session} session
 * @param {HTMLElement} saving
 */
function header(session, saving) {
  const here = window.location.pathname;
  const links = PLACES.filter((place) => (place.needs === null || session[place.needs]) && place.roles.includes(session.annotator.role)).map((place) => {
    const current = place.path === here || (place.path === "/" && here.startsWith("/d/"));
    return element("a", { href: place.path, text: place.name, "aria-current": current ? "page" : null });
  });
  // In a crowd platform's frame there is one page and nowhere else to go.
  const nav = ["mturk", "study"].includes(session.adapter) ? null : element("nav", { "aria-label": "Pages" }, ...links);
  return element("header", { class: "top" },
    element("a", { class: "skip", href: "#main", text: "To the content" }),
    element("span", { class: "name", text: "LabelMeLite" }),
    nav,
    element("span", { class: "state" }, saving, element("span", { text: session.annotator.name || session.annotator.id })),
  );
}

/**
 * Return a number as people read it.
 * @param {number | null | undefined} value
 * @param {number=} digits
 */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/**
 * Return a time as people read it.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${number(seconds / 60)} min`;
  return `${number(seconds / 3600, 1)} h`;
}
