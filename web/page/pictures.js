// @ts-check
// Thumbnails of all photos, previews of the one that is shown and its neighbours.

import { anonymize, Lost } from "./api.js";
import { changed, resultKey, state } from "./state.js";

/**
 * `small` is what the covered preview is made of: the preview, or a small photo itself.
 * @typedef {import("./state.js").Photo} Photo
 * @typedef {{width: number, height: number, factor: number, before: string, small: Blob,
 *   after: string, afterKey: string}} Preview width and height are the photo's own
 * @typedef {{photo: Photo, preview: boolean}} Task
 */

export const PREVIEW_SIDE = 1600; // pixels of the longer side
const THUMBNAIL_SIDE = 160;

const MOST_PREVIEWS = 20; // some hundred kilobytes each

/** @type {Map<Photo, Preview>} */
const previews = new Map();
/** @type {Task[]} */
let tasks = [];
/** @type {Task | null} */
let current = null;
/** @type {Worker | null} */
let worker = null;

/** The preview of a photo, if it is there. @param {Photo} photo */
export function previewOf(photo) {
  return previews.get(photo);
}

/** Makes what the photo that is shown and the others need, the shown one first. */
export function wantPictures() {
  const near = neighbourhood();
  for (const [photo, preview] of previews) {
    const { state: step, width, height } = photo;
    // The frames would be in wrong places.
    if (step === "ready" && (preview.width !== width || preview.height !== height)) {
      misread(photo);
      forget(photo, preview);
    } else if (previews.size > MOST_PREVIEWS && !near.includes(photo)) forget(photo, preview);
  }
  const previewTasks = near
    .filter((photo) => usable(photo) && !previews.has(photo))
    .map((photo) => ({ photo, preview: true }));
  const thumbnailTasks = state.photos
    .filter((photo) => usable(photo) && !photo.thumbnail && !near.includes(photo))
    // Not before its faces were searched for: the shown photo shall not wait for it.
    .filter((photo) => photo.state !== "waiting")
    .map((photo) => ({ photo, preview: false }));
  tasks = [...previewTasks, ...thumbnailTasks].filter(({ photo }) => photo !== current?.photo);
  next();
}

/** @param {Photo} photo */
function usable(photo) {
  if (photo.byServer && (photo.state === "failed" || state.connection !== "ok")) return false;
  return photo.state !== "refused" && photo.state !== "new" && !photo.undecodable;
}

/** The photo that is shown, the one after and the one before. */
function neighbourhood() {
  const at = state.shown ? state.photos.indexOf(state.shown) : -1;
  if (at < 0) return [];
  return [at, at + 1, at - 1].map((i) => state.photos[i]).filter(Boolean);
}

async function next() {
  const task = tasks[0];
  if (current || !task) return;
  const { photo, preview } = current = task;
  try {
    const file = photo.byServer ? await upright(photo) : photo.file;
    worker ??= newWorker();
    worker.postMessage({
      file,
      previewSide: preview ? PREVIEW_SIDE : 0,
      thumbnailSide: photo.thumbnail ? 0 : THUMBNAIL_SIDE,
    });
  } catch (error) {
    if (!(error instanceof Lost)) return finish({ error: String(error) });
    current = null; // once the server is back
  }
}

/** A photo as the server sees it. @param {Photo} photo */
async function upright({ file, stop }) {
  const fields = { cover_only: "true", format: "jpeg", priority: "interactive" };
  return (await anonymize(file, fields, stop.signal)).blob();
}

/** The browser does not see a photo as the server does. @param {Photo} photo */
function misread(photo) {
  photo.undecodable = photo.byServer;
  photo.byServer = true;
  photo.thumbnail = "";
}

function newWorker() {
  const made = new Worker(new URL("decoder.js", import.meta.url), { type: "module" });
  made.onmessage = ({ data }) => finish(data);
  made.onerror = () => finish({ error: "the decoder ended" });
  return made;
}

/** @param {{file: Blob, width: number, height: number, factor: number, preview: Blob | null,
 *   thumbnail: Blob | null} | {error: string}} made */
function finish(made) {
  const task = current;
  current = null;
  if (task && state.photos.includes(task.photo)) keep(task, made);
  wantPictures();
}

/** @param {Task} task @param {any} made */
function keep({ photo, preview }, made) {
  if (made.error) {
    misread(photo);
  } else {
    if (made.thumbnail) photo.thumbnail = URL.createObjectURL(made.thumbnail);
    if (!photo.width) [photo.width, photo.height] = [made.width, made.height];
    if (preview) {
      const small = made.preview ?? made.file;
      const before = URL.createObjectURL(small);
      const { width, height, factor } = made;
      previews.set(photo, { width, height, factor, before, small, after: "", afterKey: "" });
    }
  }
  changed(photo);
}

/** Takes a covered preview in place of the one before.
 * @param {Photo} photo @param {Blob | null} covered null: nothing to cover @param {string} key */
export function setCovered(photo, covered, key) {
  const preview = previews.get(photo);
  if (!preview) return;
  const old = preview.after;
  preview.after = covered ? URL.createObjectURL(covered) : preview.before;
  preview.afterKey = key;
  // The picture that is shown until the new one is decoded needs the old address a moment longer.
  if (old && old !== preview.before) setTimeout(() => URL.revokeObjectURL(old), 2000);
  changed(photo);
}

/** Whether a covered preview shows the decisions as they are. @param {Photo} photo */
export function isCurrent(photo) {
  return previews.get(photo)?.afterKey === resultKey(photo);
}

/** @param {Photo} photo @param {Preview | undefined} preview */
function forget(photo, preview = previews.get(photo)) {
  if (!preview) return;
  previews.delete(photo);
  URL.revokeObjectURL(preview.before);
  if (preview.after && preview.after !== preview.before) URL.revokeObjectURL(preview.after);
}

/** Gives back all that is held for a photo. @param {Photo} photo */
export function forgetPictures(photo) {
  forget(photo);
  if (photo.thumbnail) URL.revokeObjectURL(photo.thumbnail);
  photo.thumbnail = "";
}
