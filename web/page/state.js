// @ts-check
// The one place where the page keeps what it knows. Parts change it and say so; parts that draw
// hear of it once a frame.

import * as edits from "./edits.js";
import { coverFields, usualSettings } from "./options.js";

/**
 * @typedef {import("./edits.js").Face} Face
 * @typedef {import("./options.js").Settings} Settings
 * @typedef {{state: "none" | "running" | "done" | "failed", key: string, residual: Face[],
 *   message: string}} Check
 * A photo that is refused has a `reason`, one that failed a `message` of the server.
 * @typedef {{id: string, file: File, name: string, kind: string,
 *   state: "new" | "waiting" | "detecting" | "ready" | "failed" | "refused",
 *   reason: string, message: string, width: number, height: number, faces: Face[], known: Face[], named: number,
 *   profile: string, history: edits.History, check: Check, changedAt: number, saved: string,
 *   thumbnail: string, byServer: boolean, undecodable: boolean, stop: AbortController}} Photo
 * @typedef {{version: string, backend: string, precision: string, device: string, threads: number,
 *   formats: string[], maxBytes: number, maxPixels: number,
 *   profiles: {name: string, precision: string, threshold: number}[]}} Info
 */

export const state = {
  /** @type {Info | null} */ info: null,
  /** @type {"asking" | "ok" | "lost" | "token"} */ connection: "asking",
  token: "", // in memory alone
  settings: usualSettings(),
  settingsChangedAt: 0,
  /** @type {Photo[]} */ photos: [],
  /** @type {Photo | null} */ shown: null,
  /** @type {string} */ selected: "", // the frame that has the focus
  /** @type {"original" | "result" | "compare"} */ view: "result",
  details: true,
  drawing: false,
};

/** @type {((photos: Set<Photo>, everything: boolean) => void)[]} */
const listeners = [];
/** @type {Set<Photo>} */
let pending = new Set();
let [scheduled, everything] = [false, false];

/** Calls `listener` with the photos that changed, at most once a frame.
 * @param {(photos: Set<Photo>, everything: boolean) => void} listener */
export function listen(listener) {
  listeners.push(listener);
}

/** Says that a photo changed; without one, that anything may have. @param {Photo} [photo] */
export function changed(photo) {
  if (photo) pending.add(photo);
  else everything = true;
  if (scheduled) return;
  scheduled = true;
  // A tab in the background has no frames; its work goes on all the same.
  if (document.hidden) setTimeout(tell);
  else requestAnimationFrame(tell);
}

function tell() {
  const [photos, all] = [pending, everything];
  [pending, scheduled, everything] = [new Set(), false, false];
  for (const listener of listeners) listener(photos, all);
}

let lastId = 0;

/** @param {File} file @returns {Photo} */
export function newPhoto(file) {
  return {
    id: `p${++lastId}`, file, name: file.name || "picture", kind: "", state: "new", reason: "", message: "",
    width: 0, height: 0, faces: [], known: [], named: 0, profile: "",
    history: edits.newHistory(), check: noCheck(), changedAt: 0, saved: "", thumbnail: "",
    byServer: false, undecodable: false, stop: new AbortController(),
  };
}

/** @returns {Check} */
export function noCheck() {
  return { state: "none", key: "", residual: [], message: "" };
}

/** The frames of a photo. @param {Photo} photo */
export function framesOf(photo) {
  return edits.frames(photo.faces, photo.history.now, state.settings.threshold);
}

/** The options with which a photo is covered. @param {Photo} photo @param {Settings} settings
 * @param {number} factor */
export function fieldsOf(photo, settings = state.settings, factor = 1) {
  const { cover, keep } = edits.decisions(photo.faces, photo.history.now, settings.threshold);
  return coverFields(settings, cover, keep, factor);
}

/** Tells one result of a photo from another. @param {Photo} photo @param {Settings} [settings] */
export function resultKey(photo, settings) {
  return JSON.stringify(fieldsOf(photo, settings));
}

/** What a check found in the result as it is now; null while that is not known.
 * @param {Photo} photo @param {Settings} [settings] */
export function residualOf(photo, settings) {
  const { state: step, key, residual } = photo.check;
  return step === "done" && key === resultKey(photo, settings) ? residual : null;
}

/** What the last check found and nobody decided about since. @param {Photo} photo */
export function openResidual(photo) {
  const items = framesOf(photo);
  return photo.check.residual.filter((face) => items.every((item) => item.box !== face.box));
}

/** A step of a person in a photo. @param {Photo} photo @param {edits.Edits} next
 * @param {string} tag */
export function edit(photo, next, tag = "") {
  setHistory(photo, edits.recorded(photo.history, next, tag));
}

/** @param {Photo} photo @param {edits.History} history */
export function setHistory(photo, history) {
  if (history === photo.history) return;
  photo.history = history;
  photo.changedAt = Date.now();
  changed(photo);
}

/** A name for a frame that was not found. @param {Photo} photo */
export function newName(photo) {
  return `f${++photo.named}`;
}

/** @param {Partial<Settings>} changes */
export function choose(changes) {
  state.settings = { ...state.settings, ...changes };
  state.settingsChangedAt = Date.now();
  changed();
}
