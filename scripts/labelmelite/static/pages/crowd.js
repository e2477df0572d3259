// @ts-check
/** Annotators who come from a crowd platform: how they are let in, and how they go back. */

import { signIn } from "../net/api.js";
import { element } from "./frame.js";

/** @typedef {import("./frame.js").Frame} Frame */

/** Sign in whom a platform sent here: its address names the person and the assignment. */
export async function signInFromAddress() {
  const adapter = window.location.pathname.slice(1);
  if (adapter !== "mturk" && adapter !== "study") return;
  const crowd = Object.fromEntries(new URLSearchParams(window.location.search));
  await signIn({ token: crowd.token ?? "", crowd });
}

/**
 * Bring somebody who has submitted back to the platform; nobody else.
 * @param {Frame} frame
 * @param {{accepted: boolean, completion: string | null, form?: Record<string, string>}} done
 * @returns {boolean}  Whether the page is left.
 */
export function finishAtPlatform(frame, done) {
  if (!done.completion) return false;
  if (frame.session.adapter === "mturk") {
    const fields = Object.entries(done.form ?? {}).map(([name, value]) => element("input", { type: "hidden", name, value }));
    const form = element("form", { method: "post", action: done.completion }, ...fields);
    document.body.append(form);
    form.submit();
  } else {
    window.location.assign(done.completion);
  }
  return true;
}
