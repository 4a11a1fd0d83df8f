// @ts-check
// The covered preview is the server's work, on the small picture. The latest decision wins.

import * as api from "./api.js";
import { isCurrent, previewOf, setCovered } from "./pictures.js";
import { changed, fieldsOf, resultKey, state } from "./state.js";

/** @typedef {import("./state.js").Photo} Photo */

/** @type {{photo: Photo, stop: AbortController} | null} */
let running = null;
/** @type {{photo: Photo, key: string} | null} */
let failed = null; // not asked for again until something changes

/** Covers the preview of the photo that is shown, unless it is so already. */
export function wantCover() {
  const photo = state.shown;
  if (running && running.photo !== photo) running.stop.abort();
  if (running || !photo || !canCover(photo)) return;
  const key = resultKey(photo);
  if (!fieldsOf(photo).cover) {
    setCovered(photo, null, key);
  } else {
    void cover(photo, key);
  }
}

/** Whether the covered preview does not show the decisions. @param {Photo} photo */
export function isOld(photo) {
  return photo.state === "ready" && previewOf(photo) !== undefined && !isCurrent(photo);
}

/** Whether it could not be made. @param {Photo} photo */
export function hasFailed(photo) {
  return failed?.photo === photo && failed.key === resultKey(photo);
}

/** @param {Photo} photo */
function canCover(photo) {
  return isOld(photo) && state.connection === "ok" && !hasFailed(photo);
}

/** @param {Photo} photo @param {string} key */
async function cover(photo, key) {
  const preview = previewOf(photo);
  if (!preview) return;
  const stop = new AbortController();
  running = { photo, stop };
  try {
    const fields = { ...fieldsOf(photo, state.settings, preview.factor), priority: "interactive" };
    const response = await api.anonymize(preview.small, fields, stop.signal);
    setCovered(photo, await response.blob(), key);
  } catch (error) {
    if (!stop.signal.aborted && !(error instanceof api.Lost)) failed = { photo, key };
  }
  running = null;
  changed(photo);
}
