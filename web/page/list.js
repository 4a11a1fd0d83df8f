// @ts-check
// The queue: a row for each photo, and how far all of them are.

import { by, make, show } from "./elements.js";
import { messageOf } from "./intake.js";
import { framesOf, residualOf, resultKey, state } from "./state.js";
import { words } from "./strings.js";

/**
 * @typedef {import("./state.js").Photo} Photo
 * @typedef {{item: HTMLElement, open: HTMLButtonElement, image: HTMLImageElement,
 *   status: HTMLElement, remove: HTMLButtonElement, again: HTMLButtonElement}} Row
 */

/** @type {Map<Photo, Row>} */
const rows = new Map();

/**
 * @param {{open: (photo: Photo) => void, remove: (photo: Photo) => void,
 *   again: (photo: Photo) => void}} actions
 */
export function connectList(actions) {
  by("photos").addEventListener("click", (event) => {
    const button = /** @type {Element} */ (event.target).closest("button");
    const photo = photoOf(button);
    if (!button || !photo) return;
    if (button.classList.contains("open")) actions.open(photo);
    else if (button.classList.contains("again")) actions.again(photo);
    else actions.remove(photo);
  });
  by("photos").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const photo = photoOf(/** @type {Element} */ (event.target));
    const next = photo && step && state.photos[state.photos.indexOf(photo) + step];
    if (!next) return;
    event.preventDefault();
    actions.open(next);
    focusRow(next);
  });
}

/** @param {Element | null} inside */
function photoOf(inside) {
  const id = inside?.closest("li")?.dataset.photo;
  return state.photos.find((photo) => photo.id === id);
}

/** Draws the rows of photos that changed. @param {Set<Photo>} photos @param {boolean} everything */
export function drawList(photos, everything) {
  for (const [photo, row] of rows) {
    if (state.photos.includes(photo)) continue;
    row.item.remove();
    rows.delete(photo);
  }
  for (const photo of state.photos) {
    if (everything || photos.has(photo) || !rows.has(photo)) drawRow(photo);
  }
  drawProgress();
}

/** Gives the focus to a photo's row. @param {Photo} photo */
export function focusRow(photo) {
  rows.get(photo)?.open.focus();
}

/** Brings the row of the photo that is shown into view. */
export function scrollToShown() {
  if (state.shown) rows.get(state.shown)?.item.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** @param {Photo} photo */
function drawRow(photo) {
  const row = rows.get(photo) ?? newRow(photo);
  if (row.image.getAttribute("src") !== photo.thumbnail && photo.thumbnail) row.image.src = photo.thumbnail;
  show(row.image, Boolean(photo.thumbnail));
  const text = statusText(photo);
  if (row.status.textContent !== text) row.status.textContent = text;
  row.item.dataset.state = statusOf(photo);
  row.remove.setAttribute("aria-label", words().remove(photo.name));
  row.remove.title = words().remove(photo.name);
  row.again.textContent = words().again;
  show(row.again, photo.state === "failed");
  if (photo === state.shown) row.open.setAttribute("aria-current", "true");
  else row.open.removeAttribute("aria-current");
}

/** @param {Photo} photo @returns {Row} */
function newRow(photo) {
  const item = make("li");
  item.dataset.photo = photo.id;
  const open = /** @type {HTMLButtonElement} */ (make("button", "open"));
  const image = new Image();
  image.alt = "";
  const frame = make("span", "thumbnail");
  frame.append(image);
  const text = make("span", "text");
  const status = make("span", "status");
  const name = make("span", "name", photo.name);
  name.title = photo.name;
  text.append(name, status);
  open.append(frame, text);
  const again = /** @type {HTMLButtonElement} */ (make("button", "again quiet"));
  const remove = /** @type {HTMLButtonElement} */ (make("button", "remove quiet", "×"));
  item.append(open, again, remove);
  by("photos").append(item);
  const row = { item, open, image, status, remove, again };
  rows.set(photo, row);
  return row;
}

/** One word that the style goes by. @param {Photo} photo */
function statusOf(photo) {
  if (photo.state !== "ready") return photo.state;
  if (photo.check.state === "running") return "checking";
  const left = residualOf(photo);
  return left === null ? "ready" : left.length ? "left" : "clean";
}

/** What a row says of a photo. @param {Photo} photo */
export function statusText(photo) {
  const t = words();
  if (photo.state === "failed" || photo.state === "refused") return messageOf(photo);
  if (photo.state === "detecting") return t.stateDetecting;
  if (photo.state !== "ready") return t.stateWaiting;
  const items = framesOf(photo);
  const hidden = items.filter((item) => item.hidden).length;
  const faces = items.length ? t.stateFaces(hidden, items.length - hidden) : t.stateNoFaces;
  const left = residualOf(photo);
  const check = photo.check.state === "running" ? t.checkRunning
    : left === null ? "" : left.length ? t.checkLeft(left.length) : t.checkClean;
  const saved = photo.saved === resultKey(photo) ? t.saved : "";
  return [faces, check, saved].filter(Boolean).join(" · ");
}

function drawProgress() {
  const good = state.photos.filter((photo) => photo.state !== "refused");
  const done = good.filter((photo) => photo.state === "ready" || photo.state === "failed").length;
  by("progress-text").textContent = words().progressText(done, good.length);
  const bar = by("progress", HTMLProgressElement);
  bar.max = Math.max(good.length, 1);
  bar.value = good.length ? done : 1;
  bar.classList.toggle("done", done === good.length);
}
