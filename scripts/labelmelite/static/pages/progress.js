// @ts-check
/** How far an iteration is, what it will bring and cost, who answers, and who may. */

import { request } from "../net/api.js";
import { announce, duration, element, number, start, toast } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */

const EVERY = 5000;
const KINDS = { lab: "for one person", study: "for a study platform", mturk: "for MTurk" };

await start(async (frame) => {
  const { main, session } = frame;
  const owner = session.annotator.role === "owner";
  const facts = element("div");
  const people = element("div");
  const invites = element("div");
  main.replaceChildren(element("h1", { text: session.loop ? `Iteration ${session.loop.iteration} of ${session.loop.run}` : "Progress" }), facts, people, invites);
  const refresh = async () => {
    const progress = await request("GET", "/api/progress");
    facts.replaceChildren(...factsOf(progress));
    if (owner) people.replaceChildren(...peopleOf(progress.annotators ?? []));
  };
  await refresh();
  if (owner) await showInvites(invites);
  window.setInterval(() => document.hidden || refresh().catch(() => announce("The server cannot be reached.")), EVERY);
});

/** @param {any} progress */
function factsOf(progress) {
  const expected = progress.answered + (progress.remaining ?? 0);
  const facts = [
    [number(progress.answered), "questions answered"],
    [number(progress.open), "open now"],
    [progress.remaining === null ? "–" : `about ${number(progress.remaining)}`, rangeOf(progress.remaining_range)],
    [number(progress.accepted_so_far), "masks accepted so far"],
    [progress.expected_masks === null ? "–" : `about ${number(progress.expected_masks)}`, "masks expected at the end"],
    [duration(progress.seconds), "of people's time"],
    [`$${number(progress.dollars, 2)}`, "for it"],
  ];
  return [
    element("progress", { max: Math.max(1, expected), value: progress.answered, "aria-label": "questions answered" }),
    progress.complete ? element("p", { role: "status", text: progress.message || "All questions are answered: the loop can go on." }) : element("p", { class: "faint", text: progress.message ?? "" }),
    element("div", { class: "facts" }, ...facts.map(([value, name]) => element("div", { class: "panel fact" }, element("b", { text: value }), element("span", { text: name })))),
    ...auditsOf(progress.audits ?? []),
  ];
}

/** @param {[number, number | null] | undefined} range */
function rangeOf(range) {
  if (!range) return "expected still to come";
  return `expected still to come (${number(range[0])} to ${range[1] === null ? "?" : number(range[1])})`;
}

/** @param {any[]} audits */
function auditsOf(audits) {
  if (!audits.length) return [];
  const rows = audits.map((one) => element("tr", {},
    element("td", { text: one.certificate_id ?? one.name ?? "" }),
    element("td", { class: "number", text: number(one.questions) }),
    element("td", { class: "number", text: number(one.bad) }),
    element("td", { class: "number", text: one.lower === null || one.lower === undefined ? "–" : number(one.lower, 3) }),
    element("td", { text: one.passed === null || one.passed === undefined ? "under way" : one.passed ? "✓ shown" : "✗ not shown" }),
  ));
  return [element("h2", { text: "Audits" }), table(["Audit", "Questions", "Bad", "At least", "Target"], rows, [1, 2, 3])];
}

/** @param {any[]} annotators */
function peopleOf(annotators) {
  if (!annotators.length) return [];
  const rows = annotators.map((one) => element("tr", {},
    element("td", { text: one.name || one.id }),
    element("td", { class: "number", text: number(one.answers) }),
    element("td", { class: "number", text: one.gold ? `${number(one.gold_right)} of ${number(one.gold)}` : "–" }),
    element("td", { class: "number", text: duration(one.median_seconds) }),
    element("td", { class: "number", text: one.wage === null || one.wage === undefined ? "–" : `$${number(one.wage, 2)}` }),
    element("td", { text: one.active ? "working" : "" }),
  ));
  const pay = element("p", {}, element("a", { href: "/api/pay", download: "pay.csv", text: "Pay list as CSV" }));
  return [element("h2", { text: "Annotators" }), pay, table(["Who", "Answers", "Gold right", "Median time", "Paid an hour", ""], rows, [1, 2, 3, 4])];
}

/** @param {HTMLElement} place */
async function showInvites(place) {
  const { invites } = await request("GET", "/api/invites");
  const name = element("input", { name: "name", required: true, maxlength: "80" });
  const role = element("select", { name: "role" }, ...["annotator", "reader", "owner"].map((one) => element("option", { value: one, text: one })));
  const kind = element("select", { name: "kind" }, ...Object.entries(KINDS).map(([value, text]) => element("option", { value, text })));
  const days = element("input", { name: "days", type: "number", min: "1", max: "365", value: "14" });
  const made = element("div", { role: "status" });
  const form = element("form", { class: "spread" }, element("label", {}, "Name", name), element("label", {}, "Role", role), element("label", {}, "Way", kind), element("label", {}, "Valid for days", days), element("button", { class: "main", text: "Make a link" }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const invite = await request("POST", "/api/invites", { name: name.value, role: role.value, days: Number(days.value), kind: kind.value });
      const link = new URL(invite.link, window.location.origin).href;
      const invited = name.value;
      await showInvites(place);
      place.querySelector("[role=status]")?.replaceChildren(
        element("p", { text: `The link for ${invited}. It is shown this once:` }),
        element("p", {}, element("code", { text: link })),
        element("button", { text: "Copy", onclick: () => navigator.clipboard?.writeText(link) }),
      );
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), { problem: true });
    }
  });
  const rows = invites.filter((/** @type {any} */ one) => !one.revoked).map((/** @type {any} */ one) => element("tr", {},
    element("td", { text: one.name }),
    element("td", { text: one.role }),
    element("td", { text: one.used ? "used" : `until ${new Date(one.expires).toLocaleDateString()}` }),
    element("td", { class: "number" }, element("button", { text: "Withdraw", "aria-label": `Withdraw the link of ${one.name}`, onclick: () => withdraw(place, one.id) })),
  ));
  place.replaceChildren(element("h2", { text: "Invite somebody" }), form, made, rows.length ? table(["Who", "Role", "Link", ""], rows) : element("p", { class: "faint", text: "Nobody is invited." }));
}

/**
 * @param {HTMLElement} place
 * @param {string} id
 */
async function withdraw(place, id) {
  try {
    await request("DELETE", `/api/invites/${id}`);
    await showInvites(place);
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), { problem: true });
  }
}

/**
 * @param {string[]} heads
 * @param {HTMLElement[]} rows
 * @param {number[]=} numeric  Columns that hold numbers.
 */
function table(heads, rows, numeric = []) {
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": heads[0] }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((text, place) => element(text ? "th" : "td", { scope: text ? "col" : null, class: numeric.includes(place) ? "number" : null, text })))),
    element("tbody", {}, ...rows),
  ));
}
