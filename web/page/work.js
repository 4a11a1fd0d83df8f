// @ts-check
// What is done for each photo, two at a time: its faces are found, then its result is checked.

import * as api from "./api.js";
import { namedFaces } from "./edits.js";
import { detectFields } from "./options.js";
import {
  changed, fieldsOf, newName, noCheck, resultKey, state,
} from "./state.js";

/** @typedef {import("./state.js").Photo} Photo */

const AT_ONCE = 2;
const SETTLED_MS = 500; // without a change, before a result is checked

/** @type {Map<Photo, {checks: string, stop: AbortController}>} */
const underWay = new Map();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Starts what can be started. Call it whenever anything changed. */
export function work() {
  for (const [photo, job] of underWay) {
    if (job.checks && job.checks !== resultKey(photo)) job.stop.abort();
  }
  if (state.connection !== "ok") return;
  for (let photo = nextToDetect(); photo; photo = nextToDetect()) {
    if (underWay.size === AT_ONCE) return makeRoom();
    void detect(photo);
  }
  while (underWay.size < AT_ONCE && startCheck());
}

/** Ends a check where only checks are under way: a photo just added need not wait for them. */
function makeRoom() {
  const jobs = [...underWay.values()];
  if (jobs.every((job) => job.checks && !job.stop.signal.aborted)) jobs[0].stop.abort();
}

function nextToDetect() {
  const waiting = (/** @type {Photo | null} */ photo) =>
    photo?.state === "waiting" && !underWay.has(photo);
  return waiting(state.shown) ? state.shown : state.photos.find(waiting);
}

/** @param {Photo} photo */
async function detect(photo) {
  const stop = begin(photo, "");
  photo.state = "detecting";
  changed(photo);
  const profile = state.settings.profile;
  const priority = photo === state.shown ? "interactive" : "bulk";
  try {
    const fields = { ...detectFields(state.settings), priority };
    const found = await api.detect(photo.file, fields, stop.signal);
    [photo.width, photo.height] = [found.width, found.height];
    photo.faces = namedFaces(found.faces, photo.known, () => newName(photo));
    const others = photo.known.filter((old) => photo.faces.every((face) => face.id !== old.id));
    photo.known = [...photo.faces, ...others];
    photo.state = state.settings.profile === profile ? "ready" : "waiting";
    photo.check = noCheck();
    photo.changedAt = Date.now();
    // Something else computes now, such as the CPU in place of a GPU: the page must not say otherwise.
    if (found.backend !== state.info?.backend) void api.answers();
  } catch (error) {
    fail(photo, error);
  }
  end(photo);
}

/** @param {Photo} photo @param {unknown} error */
function fail(photo, error) {
  if (photo.stop.signal.aborted) return;
  if (error instanceof api.Lost) {
    photo.state = "waiting";
  } else {
    photo.state = "failed";
    photo.message = error instanceof Error ? error.message : String(error);
  }
}

/** Starts a check, if one is due; returns whether. */
function startCheck() {
  clearTimeout(timer);
  const due = state.photos.filter((photo) => photo.state === "ready" && isOutdated(photo));
  const now = Date.now();
  const settled = due.filter((photo) => now - settledSince(photo) >= SETTLED_MS);
  const photo = settled.find((p) => p === state.shown) ?? settled[0];
  if (photo) void check(photo);
  else if (due.length) timer = setTimeout(work, SETTLED_MS);
  return photo !== undefined;
}

/** @param {Photo} photo */
function isOutdated(photo) {
  return !underWay.has(photo) && photo.check.key !== resultKey(photo);
}

/** @param {Photo} photo */
function settledSince(photo) {
  return Math.max(photo.changedAt, state.settingsChangedAt);
}

/** Searches the result of a photo for faces. @param {Photo} photo */
async function check(photo) {
  const key = resultKey(photo);
  const stop = begin(photo, key);
  photo.check = { ...photo.check, state: "running", key };
  changed(photo);
  try {
    const fields = { ...fieldsOf(photo), verify: "0", answer: "report", priority: "bulk" };
    const report = await (await api.anonymize(photo.file, fields, stop.signal)).json();
    if (!report.verification) throw new Error("the server did not check the result");
    const before = photo.check.residual;
    const residual = namedFaces(report.verification.residual, before, () => newName(photo));
    photo.check = { state: "done", key, residual, message: "" };
  } catch (error) {
    if (stop.signal.aborted || error instanceof api.Lost) {
      photo.check = { ...noCheck(), residual: photo.check.residual };
    } else {
      const message = error instanceof Error ? error.message : String(error);
      photo.check = { state: "failed", key, residual: [], message };
    }
  }
  end(photo);
}

/** @param {Photo} photo @param {string} checks */
function begin(photo, checks) {
  const stop = new AbortController();
  photo.stop.signal.addEventListener("abort", () => stop.abort(), { once: true, signal: stop.signal });
  underWay.set(photo, { checks, stop });
  return stop;
}

/** @param {Photo} photo */
function end(photo) {
  underWay.delete(photo);
  changed(photo);
  work();
}

/** Searches all photos again, as after another profile was chosen. */
export function detectAgain() {
  for (const photo of state.photos) {
    if (photo.state === "ready") photo.state = "waiting";
  }
  changed();
}

/** @param {Photo} photo */
export function tryAgain(photo) {
  if (photo.state === "failed") photo.state = "waiting";
  photo.message = "";
  photo.undecodable = false; // the file may be there again
  photo.check = noCheck();
  changed(photo);
}

/** Resolves once the faces of a photo are known, or cannot be. @param {Photo} photo
 * @param {AbortSignal} signal @returns {Promise<void>} */
export async function settled(photo, signal) {
  while (photo.state === "new" || photo.state === "waiting" || photo.state === "detecting") {
    await new Promise((resolve) => setTimeout(resolve, 100));
    signal.throwIfAborted();
    if (!state.photos.includes(photo)) return;
  }
}

