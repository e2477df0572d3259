// @ts-check
/** The clusters of an iteration: what was asked of each, what it was answered, and why it was accepted or split. */

import { request, withQuery } from "../net/api.js";
import { Cell } from "../questions/cell.js";
import { element, number, showProblem, start } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */
/**
 * @typedef {object} TreeNode
 * @property {number} id
 * @property {number} size
 * @property {number | null} height
 * @property {string | null} category
 * @property {number} accepted
 * @property {number} rejected
 * @property {number} undecided
 * @property {number} answered
 * @property {number} yes
 * @property {"accepted" | "rejected" | "split" | "asked" | "undecided"} verdict
 * @property {number} depth
 */

const SIGNS = { accepted: "✓ accepted", rejected: "✗ rejected", split: "⋔ split", asked: "… asked", undecided: "undecided" };
const SAMPLE = 24;

/** Names of the categories by their nodes. @type {Map<number, string>} */
const categories = new Map();

await start(async (frame) => {
  const { nodes } = await request("GET", "/api/tree");
  for (const node of nodes) categories.set(node.id, node.category);
  window.addEventListener("popstate", () => show(frame));
  await show(frame);
});

/** @param {Frame} frame */
async function show(frame) {
  const node = new URLSearchParams(window.location.search).get("node");
  try {
    if (node === null) showRoots(frame, await request("GET", "/api/tree"));
    else showNode(frame, await request("GET", withQuery(`/api/tree/${encodeURIComponent(node)}`, { sample: SAMPLE })));
  } catch (error) {
    showProblem(frame.main, error);
  }
}

/**
 * @param {Frame} frame
 * @param {string} text
 * @param {number} id
 */
function link(frame, text, id) {
  const made = element("a", { href: `/tree?node=${id}`, text });
  made.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    window.history.pushState(null, "", made.href);
    show(frame).then(() => frame.main.focus());
  });
  return made;
}

/**
 * @param {Frame} frame
 * @param {{nodes: TreeNode[]}} given
 */
function showRoots(frame, { nodes }) {
  const byName = [...nodes].sort((one, other) => other.size - one.size);
  frame.main.replaceChildren(
    element("h1", { text: "Clusters by category" }),
    element("p", { text: "Each category is a tree of clusters. Open one to see what was asked, and why its masks were accepted, rejected or split." }),
    byName.length ? table(frame, byName) : element("p", { class: "faint", text: "This iteration has no tree." }),
  );
}

/**
 * @param {Frame} frame
 * @param {TreeNode[]} nodes
 */
function table(frame, nodes) {
  const heads = ["Cluster", "Masks", "Answered", "Yes", "Accepted", "Rejected", "Undecided", "Verdict"];
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Clusters" }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((text, place) => element("th", { scope: "col", class: place && place < 7 ? "number" : null, text })))),
    element("tbody", {}, ...nodes.map((node) => element("tr", {},
      element("td", {}, link(frame, nameOf(node), node.id)),
      ...[node.size, node.answered, node.yes, node.accepted, node.rejected, node.undecided].map((value) => element("td", { class: "number", text: number(value) })),
      element("td", { text: SIGNS[node.verdict] ?? node.verdict }),
    ))),
  ));
}

/** @param {TreeNode} node */
function nameOf(node) {
  return categories.get(node.id) ?? `cluster ${node.id}`;
}

/**
 * @param {Frame} frame
 * @param {{node: TreeNode, parent: TreeNode | null, path: TreeNode[], children: TreeNode[], answers: any[], certificate: any, sample: any[]}} given
 */
function showNode(frame, { node, path, children, answers, certificate, sample }) {
  const steps = path.filter((one) => one.id !== node.id).flatMap((one) => [link(frame, nameOf(one), one.id), " › "]);
  frame.main.replaceChildren(
    element("nav", { "aria-label": "Clusters above" }, element("a", { href: "/tree", text: "All categories" }), " › ", ...steps, element("span", { text: nameOf(node) })),
    element("h1", { text: `${nameOf(node)}${node.category && !categories.has(node.id) ? ` of ${node.category}` : ""}` }),
    factsOf(node),
    certificate ? certificateOf(certificate) : element("p", { class: "faint", text: "No audit covers this cluster." }),
    ...(children.length ? [element("h2", { text: "It splits into" }), table(frame, children)] : []),
    element("h2", { text: `A sample of its ${number(node.size)} masks` }),
    samplesOf(sample, frame.session.annotator.role !== "reader"),
    ...answersOf(answers),
  );
}

/** @param {TreeNode} node */
function factsOf(node) {
  const facts = [
    [number(node.size), "masks"],
    [node.height === null ? "–" : number(node.height, 3), "height of the merge"],
    [`${number(node.yes)} of ${number(node.answered)}`, "answers are yes"],
    [number(node.accepted), "accepted"],
    [number(node.rejected), "rejected"],
    [SIGNS[node.verdict] ?? node.verdict, "verdict"],
  ];
  return element("div", { class: "facts" }, ...facts.map(([value, name]) => element("div", { class: "panel fact" }, element("b", { text: value }), element("span", { text: name }))));
}

/** @param {any} one */
function certificateOf(one) {
  const passed = one.passed ? "shown" : "not shown";
  const text = `Audit ${one.certificate_id ?? ""}: ${number(one.questions)} questions; at least ${number(one.lower, 3)} of the audited set is good (wanted ${number(one.precision, 2)}: ${passed}).`;
  return element("p", { class: "panel", text });
}

/**
 * @param {any[]} sample
 * @param {boolean} editable
 */
function samplesOf(sample, editable) {
  const cells = sample.map((item, place) => {
    const cell = new Cell(item, String(place + 1));
    cell.showAnswer(item.answer ?? null);
    cell.draw();
    const edit = editable ? element("a", { class: "button", href: `/edit?item=${encodeURIComponent(item.id)}`, text: "Edit", "aria-label": `Edit: ${item.alt}` }) : null;
    return element("div", {}, cell.element, edit);
  });
  const stage = element("div", { class: "stage grid" }, ...cells);
  stage.style.setProperty("--columns", window.innerWidth < 700 ? "1" : window.innerWidth < 1200 ? "3" : "4");
  return stage;
}

/** @param {any[]} answers */
function answersOf(answers) {
  if (!answers.length) return [element("h2", { text: "Answers" }), element("p", { class: "faint", text: "Nothing of this cluster was answered." })];
  const rows = answers.map((one) => element("tr", {},
    element("td", { text: one.reply }),
    element("td", { text: one.reason ?? "" }),
    element("td", { text: one.purpose }),
    element("td", { text: one.annotator }),
    element("td", { text: one.time ? new Date(one.time).toLocaleString() : "" }),
  ));
  const heads = ["Reply", "Reason", "Asked for", "Annotator", "When"];
  return [
    element("h2", { text: `${number(answers.length)} answers` }),
    element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Answers" }, element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })))), element("tbody", {}, ...rows))),
  ];
}
