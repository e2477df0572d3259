// @ts-check
/**
 * Sends every change to the server as an event, through the outbox that survives a closed tab. When somebody else changed the
 * same object first, it asks which state shall stand.
 */

import { request } from "../net/api.js";
import { toast } from "../pages/frame.js";
import { askConflict } from "./dialogs.js";

/** @typedef {import("../geometry/history.js").Change} Change */
/** @typedef {import("../net/queue.js").Ack} Ack */
/** @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("./editor.js").Reference} Reference */
/** @typedef {import("./scene.js").Given} Given */

export class Saver {
  /**
   * @param {Editor} editor
   * @param {import("../pages/frame.js").Frame} frame
   * @param {{dataset: number, image: number, reload: () => void}} place `reload` loads the image anew
   */
  constructor(editor, frame, { dataset, image, reload }) {
    this.editor = editor;
    this.frame = frame;
    this.dataset = dataset;
    this.image = image;
    this.reload = reload;
    /** Objects about which the person is being asked. @type {Set<string>} */
    this.asking = new Set();
    /** Resolved once every question that was asked has its answer. @type {Promise<void>} */
    this.resolved = Promise.resolve();
  }

  /**
   * @param {Change} change
   * @param {Reference} reference
   * @param {string} tool
   * @param {number} seconds
   */
  save(change, reference, tool, seconds) {
    const { object, kind } = change;
    const record = { dataset: this.dataset, image: this.image, object, kind, payload: payload(change), seconds, tool, ...references(reference) };
    const { client_no, acknowledged } = this.frame.outbox.push("/api/events", "events", record);
    change.clientNo = client_no;
    acknowledged.then((ack) => this.acknowledge(change, ack));
  }

  /** @param {Change} change @param {Ack} ack */
  async acknowledge(change, ack) {
    if (!ack.error) {
      change.seq = ack.seq ?? null;
      // The name of an object that was deleted before this page was loaded is known to the server alone.
      if (change.kind === "restore" && !change.categoryAfter) await this.learnName(change.object);
    } else if (ack.error.code === "conflict") {
      const before = this.resolved;
      this.resolved = before.then(() => this.resolve(change, ack.present ?? null));
    } else {
      toast(`Not saved: ${ack.error.message}`, { problem: true });
      this.editor.history.forget(change.object);
      this.reload();
    }
  }

  /** @param {string} object */
  async learnName(object) {
    const shown = await request("GET", `/api/datasets/${this.dataset}/images/${this.image}`);
    const present = shown.objects.find((/** @type {Given} */ one) => one.id === object);
    const own = this.editor.scene.item(object);
    if (!present || !own) return;
    own.category = present.category;
    this.editor.page.shown();
  }

  /**
   * @param {Change} change
   * @param {Given | null} present
   */
  async resolve(change, present) {
    const { object } = change;
    // What was done to it since then is refused as well, and answered by the same question.
    if (this.asking.has(object)) return;
    this.asking.add(object);
    try {
      const answer = await askConflict(this.frame.keys, change.category || "object", present === null);
      const own = this.editor.scene.item(object);
      if (answer === "theirs" || (!own && !present)) this.editor.takeOver(object, present);
      else this.keepOwn(change, present);
    } finally {
      this.asking.delete(object);
    }
  }

  /**
   * Send what the object is here: its mask, and its name.
   * @param {Change} refused
   * @param {Given | null} present
   */
  keepOwn({ object, kind: refused, category: nameBefore }, present) {
    const { editor } = this;
    const own = editor.scene.item(object);
    const name = own?.category ?? present?.category ?? "";
    // What was deleted comes back with the name that it had.
    const known = present?.category ?? (refused === "rename" ? nameBefore : name);
    const kind = !present ? "restore" : own ? "edit" : "delete";
    const before = present?.mask ?? null;
    const after = own?.mask ?? null;
    editor.history.forget(object);
    const change = /** @type {Change} */ ({ object, kind, before, after, category: known, categoryAfter: known, seq: null, clientNo: null });
    if (kind !== "edit" || before?.counts !== after?.counts) editor.record(change, {}, "conflict");
    if (own && name !== known) editor.record({ ...change, kind: "rename", before: null, after: null, categoryAfter: name }, {}, "conflict");
  }
}

/** @param {Change} change */
function payload({ kind, before, after, category, categoryAfter }) {
  switch (kind) {
    case "create":
      return { category, after };
    case "edit":
      return { before, after };
    case "delete":
      return { before };
    case "restore":
      return { after };
    case "rename":
      return { before: category, after: categoryAfter };
  }
}

/**
 * Name the event that is taken back or done again: by the server's number, or by this page's while that is not known.
 * @param {Reference} reference
 */
function references({ undoes, redoes }) {
  /** @type {Record<string, number>} */
  const fields = {};
  for (const [name, change] of Object.entries({ undoes, redoes })) {
    if (change?.seq) fields[name] = change.seq;
    else if (change?.clientNo) fields[`${name}_no`] = change.clientNo;
  }
  return fields;
}
