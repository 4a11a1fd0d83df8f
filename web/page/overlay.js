// @ts-check
// Frames as SVG elements. They are kept and changed, never made anew, so that the focus stays.

import { area } from "./boxes.js";
import { words } from "./strings.js";
import { wholePercent } from "./words-en.js";

/**
 * @typedef {import("./boxes.js").Box} Box
 * @typedef {import("./edits.js").Item} Item
 * @typedef {{size: import("./boxes.js").Size, items: Item[], residual: import("./edits.js").Face[],
 *   selected: string, draft: Box | null, details: boolean, result: boolean}} Scene
 */

const SVG = "http://www.w3.org/2000/svg";
const HANDLE_PX = 9;
const TOUCH_PX = 22;
const LABEL_PX = 34; // what is narrower has its label only while it is pointed at or chosen
const ROOMY_PX = 64; // boxes at least so large have handles on their sides, too
const CORNERS = ["nw", "ne", "sw", "se"];
const SIDES = ["n", "e", "s", "w"];

/** @param {string} name @param {Record<string, string | number>} attributes
 * @returns {SVGElement} */
function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  set(made, attributes);
  return made;
}

/** @param {Element} target @param {Record<string, string | number>} attributes */
function set(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (target.getAttribute(name) !== String(value)) target.setAttribute(name, String(value));
  }
}

/** @param {Box} box */
function rectangle([x, y, x2, y2]) {
  return { x, y, width: Math.max(x2 - x, 0), height: Math.max(y2 - y, 0) };
}

/** Draws a scene; null draws nothing. @param {SVGSVGElement} svg @param {Scene | null} scene */
export function drawFrames(svg, scene) {
  if (!scene) return svg.replaceChildren();
  set(svg, { viewBox: `0 0 ${scene.size.width} ${scene.size.height}` });
  const unit = scene.size.width / (svg.getBoundingClientRect().width || scene.size.width);
  const wanted = [
    ...frames(svg, scene, unit),
    ...handles(svg, scene, unit),
    ...draft(scene),
  ];
  arrange(svg, wanted);
}

/** Frames and what the check found, the small ones on top of the large ones.
 * @param {SVGSVGElement} svg @param {Scene} scene @param {number} unit */
function frames(svg, scene, unit) {
  const all = scene.items.map((item, i) => ({ box: item.box, made: frame(svg, scene, item, i, unit) }));
  for (const face of scene.residual) {
    const at = all.findIndex(({ box }) => area(box) < area(face.box));
    const entry = { box: face.box, made: residual(svg, face, unit) };
    all.splice(at < 0 ? all.length : at, 0, entry);
  }
  return all.map(({ made }) => made);
}

/** Puts the elements in order without moving one that is in place.
 * @param {SVGSVGElement} svg @param {Element[]} wanted */
function arrange(svg, wanted) {
  for (const child of [...svg.children]) {
    if (!wanted.includes(child)) child.remove();
  }
  wanted.forEach((child, i) => {
    if (svg.children[i] !== child) svg.insertBefore(child, svg.children[i] ?? null);
  });
}

/** @param {SVGSVGElement} svg @param {string} attribute @param {string} id */
function existing(svg, attribute, id) {
  return svg.querySelector(`[${attribute}="${CSS.escape(id)}"]`);
}

/** @param {SVGSVGElement} svg @param {Scene} scene @param {Item} item @param {number} i
 * @param {number} unit pixels of the picture in one of the screen */
function frame(svg, scene, item, i, unit) {
  const group = existing(svg, "data-id", item.id) ?? newGroup({ "data-id": item.id, role: "checkbox" });
  const kind = item.source === "drawn" ? "drawn" : "found";
  const tight = item.box[2] - item.box[0] < LABEL_PX * unit ? "tight" : "";
  set(group, {
    "aria-checked": String(item.hidden),
    "aria-label": words().face(i + 1, scene.items.length, kind, item.score),
    class: `frame ${item.hidden ? "hides" : "keeps"} ${item.id === scene.selected ? "chosen" : tight}`,
  });
  outline(group, item.box);
  label(group, item.box, scene.details && item.score !== null ? percent(item.score) : "", unit);
  const seen = scene.details && !(scene.result && item.hidden);
  points(group, seen && item.landmarks ? Object.values(item.landmarks) : [], unit);
  return group;
}

/** @param {SVGSVGElement} svg @param {import("./edits.js").Face} face @param {number} unit */
function residual(svg, face, unit) {
  const group = existing(svg, "data-residual", face.id) ??
    newGroup({ "data-residual": face.id, role: "button", class: "frame left" });
  set(group, { "aria-label": words().residual(face.score) });
  outline(group, face.box);
  label(group, face.box, "!", unit);
  return group;
}

/** @param {Record<string, string>} attributes */
function newGroup(attributes) {
  const group = element("g", { ...attributes, tabindex: 0 });
  group.append(
    element("rect", { class: "halo" }), element("rect", { class: "line" }),
    element("g", { class: "points" }), element("text", { class: "score" }),
  );
  return group;
}

/** @param {Element} group @param {Box} box */
function outline(group, box) {
  for (const rect of group.querySelectorAll("rect")) set(rect, rectangle(box));
}

/** @param {Element} group @param {Box} box @param {string} text @param {number} unit */
function label(group, [x1, y1], text, unit) {
  const words = /** @type {Element} */ (group.querySelector("text"));
  if (words.textContent !== text) words.textContent = text;
  const y = y1 > 18 * unit ? y1 - 5 * unit : y1 + 15 * unit; // inside where there is no room above
  set(words, { x: x1 + (y1 > 18 * unit ? 0 : 4 * unit), y, "font-size": 12 * unit, "stroke-width": 3 * unit });
}

/** @param {Element} group @param {number[][]} places @param {number} unit */
function points(group, places, unit) {
  const holder = /** @type {Element} */ (group.querySelector(".points"));
  while (holder.children.length > places.length) holder.lastChild?.remove();
  while (holder.children.length < places.length) holder.append(element("circle"));
  places.forEach(([cx, cy], i) => set(holder.children[i], { cx, cy, r: 2 * unit }));
}

/** @param {number} score */
function percent(score) {
  return `${wholePercent(score)} %`;
}

/** @param {SVGSVGElement} svg @param {Scene} scene @param {number} unit @returns {Element[]} */
function handles(svg, scene, unit) {
  const item = scene.items.find(({ id }) => id === scene.selected);
  if (!item) return [];
  const [x1, y1, x2, y2] = item.box;
  const roomy = Math.min(x2 - x1, y2 - y1) > ROOMY_PX * unit;
  const out = roomy ? 0 : (HANDLE_PX / 2 + 2) * unit; // beside a small box, not on it
  return [...CORNERS, ...(roomy ? SIDES : [])].flatMap((name) => {
    const x = name.includes("w") ? x1 - out : name.includes("e") ? x2 + out : (x1 + x2) / 2;
    const y = name.includes("n") ? y1 - out : name.includes("s") ? y2 + out : (y1 + y2) / 2;
    return [handle(svg, name, x, y, HANDLE_PX * unit, ""), handle(svg, name, x, y, TOUCH_PX * unit, "reach")];
  });
}

/** @param {SVGSVGElement} svg @param {string} name @param {number} x @param {number} y
 * @param {number} side @param {string} kind */
function handle(svg, name, x, y, side, kind) {
  const rect = svg.querySelector(`[data-handle="${name}"][class="handle ${kind}"]`) ??
    element("rect", { "data-handle": name, class: `handle ${kind}` });
  set(rect, { x: x - side / 2, y: y - side / 2, width: side, height: side });
  return rect;
}

/** @param {Scene} scene */
function draft({ draft: box }) {
  return box ? [element("rect", { class: "draft", ...rectangle(box) })] : [];
}
