// @ts-check
// The choices of the page as options of the server. Pure functions.

import { scaledBoxes } from "./boxes.js";

/**
 * @typedef {import("./boxes.js").Box} Box
 * @typedef {{profile: string, threshold: number, method: string, shape: string, margin: number,
 *   cells: number, kernel: number, color: string, audit: boolean}} Settings
 */

/** Boxes are searched down to this score once; the slider then works without the server. */
export const LEAST_SCORE = 0.3;
export const PRIVACY_MARGIN = 0.25; // the server's own for this profile, see unface.mtcnn.options
export const USUAL_MARGIN = 0.1;
const MOST_CELLS = 8; // finer mosaics show features
const KERNEL_STEP = 0.3; // the server takes 0.3 to 2
const KERNEL_STEPS = 6;

/** @returns {Settings} */
export function usualSettings() {
  return {
    profile: "accurate", threshold: 0.7, method: "mosaic", shape: "ellipse", margin: USUAL_MARGIN,
    cells: 5, kernel: 0.6, color: "#000000", audit: false,
  };
}

/** How strong a mask is, from 1, which is weak. @param {Settings} settings */
export function strengthOf({ method, cells, kernel }) {
  return method === "blur" ? Math.round(kernel / KERNEL_STEP) : MOST_CELLS + 1 - cells;
}

/** @param {Settings} settings @param {number} strength @returns {Settings} */
export function withStrength(settings, strength) {
  return settings.method === "blur"
    ? { ...settings, kernel: Math.round(strength * KERNEL_STEP * 10) / 10 }
    : { ...settings, cells: MOST_CELLS + 1 - strength };
}

/** The strongest there is. @param {string} method */
export function mostStrength(method) {
  return method === "blur" ? KERNEL_STEPS : MOST_CELLS - 1;
}

/** @param {Settings} settings @returns {Record<string, string>} */
export function detectFields({ profile }) {
  return { profile, onet_threshold: String(LEAST_SCORE) };
}

/** @param {Settings} settings @returns {Record<string, string>} */
export function maskFields({ method, shape, margin, cells, kernel, color }) {
  /** @type {Record<string, string>} */
  const fields = { method, shape, margin: String(margin) };
  if (method === "mosaic") fields.cells = String(cells);
  if (method === "blur") fields.kernel = String(kernel);
  if (method === "solid") {
    fields.color = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)).join(",");
  }
  return fields;
}

/** Cover exactly these boxes; `keep` is what a check passes over.
 * @param {Settings} settings @param {Box[]} cover @param {Box[]} keep @param {number} factor
 * @returns {Record<string, string>} */
export function coverFields(settings, cover, keep, factor = 1) {
  const fields = { ...maskFields(settings), cover_only: "true" };
  if (cover.length) Object.assign(fields, { cover: JSON.stringify(scaledBoxes(cover, factor)) });
  if (keep.length) Object.assign(fields, { keep: JSON.stringify(scaledBoxes(keep, factor)) });
  return fields;
}

/** A name for the covered file: "a.b.jpg" becomes "a.b-unface.jpg".
 * @param {string} name @param {string} type media type of the covered file */
export function coveredName(name, type) {
  const suffix = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" }[type] ?? "jpg";
  const dot = name.lastIndexOf(".");
  const [stem, old] = dot > 0 ? [name.slice(0, dot), name.slice(dot + 1)] : [name, ""];
  const same = suffix === "jpg" && /^jpe?g$/i.test(old);
  return `${stem || "picture"}-unface.${same ? old : suffix}`;
}
