// @ts-check
// What a person works with once there are photos: queue, picture, settings, downloads.

import { wantCover } from "./covers.js";
import { connectDownloads, drawDownloads, isUnsaved } from "./downloads.js";
import { redo, undo } from "./editor.js";
import { by, show } from "./elements.js";
import { connectList, drawList, focusRow, scrollToShown, statusText } from "./list.js";
import { connectPanel, drawCount, drawPanel, takeThreshold } from "./panel.js";
import { forgetPictures, wantPictures } from "./pictures.js";
import { connectStage, drawStage, resetZoom } from "./stage.js";
import { changed, listen, state } from "./state.js";
import { words } from "./strings.js";
import { tryAgain, work } from "./work.js";

/** @typedef {import("./state.js").Photo} Photo */

/** @param {Photo | null} photo */
function open(photo) {
  if (photo === state.shown) return;
  state.shown = photo;
  state.selected = "";
  resetZoom();
  by("ground").scrollTo(0, 0);
  changed();
  requestAnimationFrame(scrollToShown);
}

/** @param {number} step */
function openNeighbour(step) {
  const next = state.shown && state.photos[state.photos.indexOf(state.shown) + step];
  if (next) open(next);
}

/** @param {Photo} photo */
function remove(photo) {
  const at = state.photos.indexOf(photo);
  photo.stop.abort();
  forgetPictures(photo);
  state.photos.splice(at, 1);
  const next = state.photos[at] ?? state.photos[at - 1] ?? null;
  if (photo === state.shown) open(next);
  else changed();
  // The button that was pressed is gone.
  requestAnimationFrame(() => (next ? focusRow(next) : focusStart()));
}

function focusStart() {
  by("start").querySelector("button")?.focus();
}

function clear() {
  const decided = state.photos.filter((photo) => photo.history.past.length && isUnsaved(photo));
  if (decided.length && !confirm(words().clearSure(decided.length))) return;
  for (const photo of state.photos) {
    photo.stop.abort();
    forgetPictures(photo);
  }
  state.photos.length = 0;
  by("download-said").replaceChildren();
  open(null);
  requestAnimationFrame(focusStart);
}

let wasBusy = false;
let lastSaid = "";

/** Says to screen readers what happened: the photo that is shown, and the end of all. */
function announce() {
  const photo = state.shown;
  const isBusy = state.photos.some((p) => p.state === "waiting" || p.state === "detecting");
  const text = photo && photo.state !== "new" ? words().announce(photo.name, statusText(photo)) : "";
  const ends = wasBusy && !isBusy && state.photos.length > 1;
  wasBusy = isBusy;
  if (text === lastSaid && !ends) return;
  lastSaid = text;
  by("announce").textContent = ends ? `${text} ${words().allDone}` : text;
}

/** @param {Set<Photo>} photos @param {boolean} everything */
function draw(photos, everything) {
  const hasPhotos = state.photos.length > 0;
  show(by("start"), !hasPhotos);
  show(by("work"), hasPhotos);
  document.body.classList.toggle("working", hasPhotos);
  if (everything) {
    takeThreshold();
    drawPanel();
  } else drawCount();
  work();
  wantPictures();
  wantCover();
  drawList(photos, everything);
  if (everything || (state.shown && photos.has(state.shown))) drawStage();
  drawDownloads();
  announce();
}

/** @param {KeyboardEvent} event */
function key(event) {
  if (document.querySelector("dialog[open]")) return;
  const isText = /** @type {Element} */ (event.target).matches?.('input[type="password"]');
  const isCommand = (event.ctrlKey || event.metaKey) && !event.altKey && !isText;
  const letter = event.key.toLowerCase();
  if (isCommand && letter === "z") event.shiftKey ? redo() : undo();
  else if (isCommand && letter === "y") redo();
  else if (event.key === "PageDown") openNeighbour(1);
  else if (event.key === "PageUp") openNeighbour(-1);
  else return;
  event.preventDefault();
}

listen(draw);
connectList({ open, remove, again: tryAgain });
connectStage();
connectPanel();
connectDownloads();
by("clear").addEventListener("click", clear);
document.addEventListener("keydown", key);
changed();
