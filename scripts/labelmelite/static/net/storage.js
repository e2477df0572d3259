// @ts-check
/**
 * Text that a tab remembers over a reload. In the frame of another site browsers may refuse their storage; then it is
 * remembered until the page is left.
 */

/** @type {Map<string, string>} */
const here = new Map();

/** @param {string} name  @returns {string | null} */
export function recall(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return here.get(name) ?? null;
  }
}

/** @param {string} name  @param {string} value */
export function remember(name, value) {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    here.set(name, value);
  }
}

/** @param {string} name */
export function forget(name) {
  try {
    sessionStorage.removeItem(name);
  } catch {
    here.delete(name);
  }
}
