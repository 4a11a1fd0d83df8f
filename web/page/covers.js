// @ts-check
// The covered preview is the server's work, on the small picture. The latest decision wins.

import * as api from "./api.js";
import { isCurrent, previewOf, setCovered } from "./pictures.js";
import { changed, decisionsOf, fieldsOf, resultKey, state } from "./state.js";

/** @typedef {import("./state.js").Photo} Photo */

/** @type {{photo: Photo, stop: AbortController} | null} */
let running = null;
let failedKey = ""; // not asked for again until something changes

/** Covers the preview of the photo that is shown, unless it is so already. */
export function wantCover() {
  const photo = state.shown;
  if (running && running.photo !== photo) running.stop.abort();
  if (running || !photo || !canCover(photo) || isCurrent(photo)) return;
  const key = resultKey(photo);
  if (decisionsOf(photo).cover.length === 0) {
    setCovered(photo, null, key);
  } else {
    void cover(photo, key);
  }
}

/** Whether the covered preview is still to come. @param {Photo} photo */
export function isUpdating(photo) {
  return canCover(photo) && !isCurrent(photo);
}

/** @param {Photo} photo */
function canCover(photo) {
  return photo.state === "ready" && previewOf(photo) !== undefined &&
    state.connection === "ok" && failedKey !== resultKey(photo);
}

/** @param {Photo} photo @param {string} key */
async function cover(photo, key) {
  const preview = previewOf(photo);
  if (!preview) return;
  const stop = new AbortController();
  running = { photo, stop };
  try {
    const fields = { ...fieldsOf(photo, preview.factor), priority: "interactive" };
    const response = await api.anonymize(preview.small, fields, stop.signal);
    setCovered(photo, await response.blob(), key);
  } catch (error) {
    if (!stop.signal.aborted && !(error instanceof api.Lost)) failedKey = key;
  }
  running = null;
  changed(photo);
}
