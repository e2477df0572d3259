// @ts-check
/** Sign in with the token that stands behind the # of a link, where no server log sees it. */

import { signIn } from "../net/api.js";
import { element } from "./frame.js";

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const token = window.location.hash.slice(1);
// The token leaves the address at once, so that neither history nor a screenshot keeps it.
window.history.replaceState(null, "", window.location.pathname);

try {
  if (!token) throw new Error("This link has no token. Open the whole link that you were sent.");
  const session = await signIn({ token });
  const target = session.loop && session.annotator.role === "annotator" ? "/questions" : "/";
  window.location.replace(target);
} catch (error) {
  main.replaceChildren(
    element("div", { class: "message", role: "alert" },
      element("h1", { text: "This link does not work" }),
      element("p", { text: error instanceof Error ? error.message : String(error) }),
      element("p", { text: "Links expire, and can be used once. Ask for a new one." }),
    ),
  );
}
