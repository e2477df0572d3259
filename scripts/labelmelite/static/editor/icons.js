// @ts-check
/** Small line drawings for buttons; the words stand beside them or in the tooltip. */

/** @type {Record<string, string>} */
const PATHS = {
  select: "M5 3l6.5 17 2.3-7.2L21 10.5z",
  edit: "M4 16c2-7 6-9 9-8s4 5 7 3M4 16l2.5 2.5M15.5 5.5l3 3-8 8-3.6.6.6-3.6z",
  brush: "M14.5 4.5l5 5L11 18c-1 1-2.500 1.300-4 1.500-1.500.2-2.500.5-3.500.5.3-1 .5-2 .7-3.500.2-1.500.5-3 1.500-4z M12 7l5 5",
  new: "M5 8l6-4 8 4-2 9-9 2zM5 8v.01M11 4v.01M19 8v.01M17 17v.01M8 19v.01",
  undo: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 6 6",
  redo: "M15 7l5 5-5 5M20 12H10a6 6 0 0 0-6 6",
  delete: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5",
  snap: "M4 15c3-9 13-9 16 0M7 19h.01M12 20h.01M17 19h.01M12 3v3M5 5l2 2M19 5l-2 2",
  hide: "M3 12s3.500-6 9-6 9 6 9 6-3.500 6-9 6-9-6-9-6zM12 9.500a2.500 2.500 0 1 0 .01 0",
  hidden: "M3 12s3.500-6 9-6 9 6 9 6-3.500 6-9 6-9-6-9-6zM4 20L20 4",
  out: "M5 12h14",
  in: "M5 12h14M12 5v14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  previous: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  list: "M4 6h.01M8 6h12M4 12h.01M8 12h12M4 18h.01M8 18h12",
  cross: "M12 3v6M12 15v6M3 12h6M15 12h6",
  other: "M7 4v13M7 17l-3-3M7 17l3-3M17 20V7M17 7l-3 3M17 7l3 3",
  rename: "M4 7V4h16v3M12 4v16M8.500 20h7",
  bright: "M12 8a4 4 0 1 0 .01 0M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M5 19l1.500-1.500M17.500 6.500L19 5",
};

/** @param {string} name */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
