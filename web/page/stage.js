// @ts-check
// The photo that is shown: original, result or both with a slider between; zoom; what the check says.

import { hasFailed, isOld } from "./covers.js";
import { addInMiddle, drawEditor, redo, settleResidual, undo } from "./editor.js";
import { toggledAll } from "./edits.js";
import { by, show } from "./elements.js";
import { messageOf } from "./intake.js";
import { previewOf } from "./pictures.js";
import { changed, edit, framesOf, residualOf, state } from "./state.js";
import { words } from "./strings.js";
import { tryAgain } from "./work.js";

/** @typedef {import("./state.js").Photo} Photo */

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
const USUAL_ZOOM = 8; // and as much more as a panorama needs to fill the ground
let zoom = 1;
/** @type {Photo | null} */
let drawn = null;

const ground = by("ground");
const picture = by("picture");
const [before, after] = [by("before", HTMLImageElement), by("after", HTMLImageElement)];
const wipeAt = by("wipe-at", HTMLInputElement);

/** Draws the stage. */
export function drawStage() {
  const photo = state.shown;
  drawPictures(photo);
  fit(photo);
  drawEditor();
  drawTools(photo);
  drawCheck(photo);
}

/** @param {Photo | null} photo */
function drawPictures(photo) {
  const preview = photo ? previewOf(photo) : undefined;
  // Another photo's picture does not stay until this one's is decoded.
  if (photo !== drawn) for (const image of [before, after]) put(image, "");
  drawn = photo;
  put(before, preview?.before ?? "");
  // The last result stays until the next one is there; before the first, the original is shown.
  put(after, preview?.after ?? "");
  const hasResult = Boolean(preview?.after);
  show(after, hasResult && state.view !== "original");
  const compares = state.view === "compare" && hasResult;
  show(by("wipe"), compares);
  by("frames").classList.toggle("off", compares);
  after.style.clipPath = compares ? `inset(0 0 0 ${wipeAt.value}%)` : "";
  by("wipe-line").style.left = `${wipeAt.value}%`;
  const pill = photo && preview ? pillText(photo) : "";
  by("updating").textContent = pill;
  show(by("updating"), pill !== "");
  const message = photo ? coverMessage(photo) : "";
  by("cover").textContent = message;
  show(by("cover"), message !== "");
  show(picture, Boolean(photo?.width) && photo?.state !== "failed");
  ground.setAttribute("aria-busy", String(photo?.state === "detecting"));
}

/** Why the picture is not what a download would be. @param {Photo} photo */
function pillText(photo) {
  if (photo.state === "detecting") return words().stateDetecting;
  if (!isOld(photo)) return "";
  return hasFailed(photo) ? words().previewOld : words().updating;
}

/** What stands where the picture is not. @param {Photo} photo */
function coverMessage(photo) {
  if (photo.state === "failed" || photo.state === "refused") return messageOf(photo);
  if (photo.undecodable) return words().noPreview;
  if (photo.width) return "";
  return photo.state === "detecting" ? words().stateDetecting : words().stateWaiting;
}

/** Shows an address once it is decoded, so that nothing flickers.
 * @param {HTMLImageElement} image @param {string} address */
function put(image, address) {
  if (image.dataset.address === address) return;
  image.dataset.address = address;
  if (!address) return image.removeAttribute("src");
  const next = new Image();
  next.src = address;
  const swap = () => {
    if (image.dataset.address === address) image.src = address;
  };
  next.decode().then(swap, swap);
}

/** Gives the picture its size on the screen. @param {Photo | null} photo */
function fit(photo) {
  if (!photo?.width) return;
  const ratio = photo.width / photo.height;
  ground.style.setProperty("--ratio", String(ratio)); // gives it its height on a phone
  const { clientWidth, clientHeight } = ground;
  const width = Math.min(clientWidth, clientHeight * ratio) * zoom;
  picture.style.width = `${Math.floor(width)}px`;
  picture.style.height = `${Math.floor(width / ratio)}px`;
}

function mostZoom() {
  const { width, height } = picture.getBoundingClientRect();
  return Math.max(USUAL_ZOOM, (zoom * ground.clientWidth) / width, (zoom * ground.clientHeight) / height);
}

/** @param {number} steps 0 fits @param {{clientX: number, clientY: number}} [at] stays in place */
function zoomBy(steps, at) {
  const index = steps === 0 ? 0 : ZOOMS.indexOf(zoom) + steps;
  const next = ZOOMS[Math.min(Math.max(index, 0), ZOOMS.length - 1)];
  if (next === zoom || (steps > 0 && zoom >= mostZoom())) return;
  const area = ground.getBoundingClientRect();
  const x = at?.clientX ?? area.left + area.width / 2;
  const y = at?.clientY ?? area.top + area.height / 2;
  const old = picture.getBoundingClientRect();
  zoom = next;
  drawStage();
  const now = picture.getBoundingClientRect();
  const factor = now.width / old.width;
  ground.scrollBy((x - old.left) * factor - (x - now.left), (y - old.top) * factor - (y - now.top));
}

/** Fits the picture again, as for another photo. */
export function resetZoom() {
  zoom = 1;
}

/** @param {Photo | null} photo */
function drawTools(photo) {
  const ready = photo?.state === "ready";
  const items = ready ? framesOf(photo) : [];
  by("undo", HTMLButtonElement).disabled = !ready || photo.history.past.length === 0;
  by("redo", HTMLButtonElement).disabled = !ready || photo.history.future.length === 0;
  const draw = by("draw", HTMLButtonElement);
  draw.disabled = !ready;
  draw.setAttribute("aria-pressed", String(state.drawing));
  by("frames").classList.toggle("drawing", state.drawing);
  const all = by("all", HTMLButtonElement);
  all.textContent = hides(items) ? words().hideAll : words().keepAll;
  all.disabled = items.length === 0;
  by("zoom-out", HTMLButtonElement).disabled = zoom === ZOOMS[0];
  by("zoom-fit", HTMLButtonElement).disabled = zoom === ZOOMS[0];
  by("zoom-in", HTMLButtonElement).disabled = !photo?.width || zoom >= mostZoom();
  by("hint").textContent = matchMedia("(pointer: coarse)").matches ? words().hintTouch : words().hint;
}

/** Whether the button for all hides: only where all are visible. @param {{hidden: boolean}[]} items */
function hides(items) {
  return items.length > 0 && items.every((item) => !item.hidden);
}

/** @param {Photo | null} photo */
function drawCheck(photo) {
  const box = by("check");
  const left = photo?.state === "ready" ? residualOf(photo) : null;
  const failed = photo?.state === "failed" || (photo?.check.state === "failed" && left === null);
  box.dataset.state = failed ? "failed" : left === null ? "running" : left.length ? "left" : "clean";
  const text = photo ? checkText(photo, left) : "";
  if (by("check-text").textContent !== text) by("check-text").textContent = text;
  box.classList.toggle("off", text === "" && !failed);
  show(by("check-hide"), Boolean(left?.length));
  show(by("check-leave"), Boolean(left?.length));
  show(by("check-again"), failed);
  by("check-hide").textContent = words().hideLeft(left?.length ?? 0);
}

/** @param {Photo} photo @param {unknown[] | null} left */
function checkText(photo, left) {
  if (photo.state !== "ready") return "";
  if (left?.length) return words().checkTitleLeft(left.length);
  if (left) return framesOf(photo).some((i) => !i.hidden) ? words().checkTitleKept : words().checkTitleClean;
  if (photo.check.state === "failed") return words().checkTitleFailed(photo.check.message);
  return words().checkTitleRunning;
}

/** @param {boolean} hide */
function settleAll(hide) {
  const photo = state.shown;
  const left = photo && residualOf(photo);
  if (!photo || !left?.length) return;
  settleResidual(photo, left, hide);
  by("frames").focus({ preventScroll: true }); // the button goes away
}

/** @param {"original" | "result" | "compare"} view */
function chooseView(view) {
  const hadFocus = picture.contains(document.activeElement);
  state.view = view;
  const input = by("views").querySelector(`[value="${view}"]`);
  /** @type {HTMLInputElement} */ (input).checked = true;
  drawStage();
  // What had the focus is not there in the other view.
  if (hadFocus) by(view === "compare" ? "wipe-at" : "frames").focus({ preventScroll: true });
}

/** @param {KeyboardEvent} event */
function stageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { "+": 1, "=": 1, "-": -1, "0": 0 }[event.key];
  const view = /** @type {const} */ ({ 1: "original", 2: "result", 3: "compare" })[event.key];
  if (steps !== undefined) zoomBy(steps);
  else if (view) chooseView(view);
  else if (event.key === "b" || event.key === "B") addInMiddle();
  else return;
  event.preventDefault();
}

/** Connects the controls around the picture. */
export function connectStage() {
  by("views").addEventListener("change", (event) =>
    chooseView(/** @type {any} */ (event.target).value));
  by("undo").addEventListener("click", undo);
  by("redo").addEventListener("click", redo);
  by("draw").addEventListener("click", (event) => {
    // Without a pointer nothing can be drawn: the box comes by itself.
    if (event.detail === 0) return addInMiddle();
    state.drawing = !state.drawing;
    changed();
  });
  by("all").addEventListener("click", () => {
    const photo = state.shown;
    if (!photo) return;
    const items = framesOf(photo);
    edit(photo, toggledAll(photo.history.now, items.map((item) => item.id), hides(items)));
  });
  by("zoom-in").addEventListener("click", () => zoomBy(1));
  by("zoom-out").addEventListener("click", () => zoomBy(-1));
  by("zoom-fit").addEventListener("click", () => zoomBy(0));
  ground.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1 : -1, event);
  }, { passive: false });
  wipeAt.addEventListener("input", () => drawPictures(state.shown));
  picture.addEventListener("keydown", stageKey);
  by("details").addEventListener("change", () => {
    state.details = by("details", HTMLInputElement).checked;
    changed();
  });
  by("check-hide").addEventListener("click", () => settleAll(true));
  by("check-leave").addEventListener("click", () => settleAll(false));
  by("check-again").addEventListener("click", () => {
    if (state.shown) tryAgain(state.shown);
  });
  new ResizeObserver(() => drawStage()).observe(ground);
}
