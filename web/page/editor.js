// @ts-check
// The frames over the picture: click to hide or keep, drag to move, resize or draw; the same by keys.

import { boxBetween, grownBox, leastSide, movedBox, resizedBox } from "./boxes.js";
import * as edits from "./edits.js";
import { by } from "./elements.js";
import { drawFrames } from "./overlay.js";
import { changed, edit, framesOf, newName, openResidual, setHistory, state } from "./state.js";

/**
 * @typedef {import("./boxes.js").Box} Box
 * @typedef {import("./state.js").Photo} Photo
 * @typedef {{photo: Photo, id: string, handle: string, box: Box, draft: Box, from: number[],
 *   moved: boolean}} Drag `id` "" draws a new box; `handle` "" moves one
 */

const CLICK_PX = 4; // a drag shorter than this is a click
const ARROWS = /** @type {Record<string, number[]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
});

const svg = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (document.getElementById("frames")));
const ground = by("ground");
/** @type {Drag | null} */
let drag = null;

/** Draws the frames of the photo that is shown. */
export function drawEditor() {
  const photo = state.shown;
  if (!photo?.width) return drawFrames(svg, null);
  const items = framesOf(photo).map((item) =>
    drag?.moved && item.id === drag.id ? { ...item, box: drag.draft, landmarks: null } : item,
  );
  drawFrames(svg, {
    size: photo, items, residual: openResidual(photo), selected: state.selected,
    draft: drag?.moved && drag.id === "" ? drag.draft : null, details: state.details,
    result: state.view === "result",
  });
}

/** Adds frames to a photo. @param {Photo} photo @param {Box[]} boxes
 * @param {"drawn" | "check"} source @param {boolean} hide @param {number[]} [scores] */
export function addBoxes(photo, boxes, source, hide = true, scores) {
  const more = boxes.map((box, i) => ({ id: newName(photo), box, source, score: scores?.[i] ?? null }));
  edit(photo, edits.added(photo.history.now, more, hide));
  return more[0]?.id ?? "";
}

/** Hides faces that the check found, or says that they may be seen. @param {Photo} photo
 * @param {import("./edits.js").Face[]} faces @param {boolean} hide */
export function settleResidual(photo, faces, hide) {
  const scores = faces.map((face) => face.score);
  return addBoxes(photo, faces.map((face) => face.box), "check", hide, scores);
}

/** Puts a box into the middle of what is seen, for those who do not draw. */
export function addInMiddle() {
  const photo = state.shown;
  if (photo?.state !== "ready") return;
  const { left, top, width, height } = ground.getBoundingClientRect();
  const [x, y] = point({ clientX: left + width / 2, clientY: top + height / 2 });
  const seen = Math.min(width, height) * (photo.width / svg.getBoundingClientRect().width);
  const half = Math.max(Math.min(seen, photo.width, photo.height) / 12, leastSide(photo));
  const box = boxBetween([x - half, y - half], [x + half, y + half], photo);
  focusFrame(addBoxes(photo, [box], "drawn"));
}

/** Gives the focus to a frame once it is drawn. @param {string} id */
function focusFrame(id) {
  state.selected = id;
  drawEditor();
  frameElement(id)?.focus();
}

/** @param {string} id @returns {SVGElement | null} */
function frameElement(id) {
  return svg.querySelector(`[data-id="${CSS.escape(id)}"]`);
}

/** @param {{clientX: number, clientY: number}} event @returns {number[]} pixels of the picture */
function point(event) {
  const { left, top, width, height } = svg.getBoundingClientRect();
  const size = state.shown ?? { width: 0, height: 0 };
  return [
    ((event.clientX - left) / width) * size.width, ((event.clientY - top) / height) * size.height,
  ];
}

/** @param {PointerEvent} event */
function press(event) {
  const photo = state.shown;
  if (photo?.state !== "ready" || event.button !== 0 || !event.isPrimary) return;
  const target = /** @type {Element} */ (event.target);
  const handle = target.getAttribute("data-handle") ?? "";
  if (target.closest("[data-residual]")) return; // one that the check found: a click hides it
  const id = handle ? state.selected : target.closest("[data-id]")?.getAttribute("data-id") ?? "";
  const item = framesOf(photo).find((frame) => frame.id === id);
  if (!id && event.pointerType === "touch" && !state.drawing) return; // the page is scrolled
  event.preventDefault(); // no selection of text, no dragging of the picture
  const box = item?.box ?? /** @type {Box} */ ([0, 0, 0, 0]);
  drag = { photo, id, handle, box, draft: box, from: point(event), moved: false };
  svg.setPointerCapture(event.pointerId);
}

/** @param {PointerEvent} event */
function pull(event) {
  if (!drag || drag.photo !== state.shown) return;
  const [x, y] = point(event);
  const [dx, dy] = [x - drag.from[0], y - drag.from[1]];
  const unit = drag.photo.width / svg.getBoundingClientRect().width;
  drag.moved ||= Math.hypot(dx, dy) > CLICK_PX * unit;
  if (!drag.id) drag.draft = boxBetween(drag.from, [x, y], drag.photo);
  else if (drag.handle) drag.draft = resizedBox(drag.box, drag.handle, dx, dy, drag.photo);
  else drag.draft = movedBox(drag.box, dx, dy, drag.photo);
  drawEditor();
}

/** @param {PointerEvent} event */
function release(event) {
  const ended = drag;
  drag = null;
  if (!ended || ended.photo !== state.shown) return;
  const { photo, id, draft, moved } = ended;
  if (moved && id) {
    edit(photo, edits.moved(photo.history.now, id, draft));
    focusFrame(id);
  } else if (moved && isDrawable(draft, photo)) {
    focusFrame(addBoxes(photo, [draft], "drawn"));
  } else if (!moved && id && !ended.handle) {
    edit(photo, edits.toggled(photo.history.now, id));
    focusFrame(id);
  } else {
    if (!id && event.type === "pointerup") svg.focus({ preventScroll: true });
    drawEditor();
  }
}

/** @param {Box} box @param {Photo} photo */
function isDrawable([x1, y1, x2, y2], photo) {
  return Math.min(x2 - x1, y2 - y1) >= leastSide(photo);
}

/** @param {MouseEvent} event */
function click(event) {
  const target = /** @type {Element} */ (event.target);
  const residual = target.closest("[data-residual]")?.getAttribute("data-residual");
  const id = target.closest("[data-id]")?.getAttribute("data-id");
  if (residual) hideResidual(residual);
  // Without a pointer, as screen readers do it; a pointer's own click was seen to in `release`.
  else if (id && event.detail === 0 && state.shown?.state === "ready") {
    edit(state.shown, edits.toggled(state.shown.history.now, id));
  }
}

/** @param {string} id */
function hideResidual(id) {
  const photo = state.shown;
  const face = photo && openResidual(photo).find((found) => found.id === id);
  if (photo && face) focusFrame(settleResidual(photo, [face], true));
}

/** @param {KeyboardEvent} event */
function key(event) {
  const photo = state.shown;
  if (event.key === "Escape" && drag) {
    drag = null;
    drawEditor();
  } else if (photo?.state === "ready" && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const element = /** @type {Element} */ (event.target);
    const residual = element.getAttribute("data-residual");
    const id = element.getAttribute("data-id");
    const done = residual ? keyOnResidual(event, residual) : id && keyOnFrame(event, photo, id);
    if (done) event.preventDefault();
  }
}

/** @param {KeyboardEvent} event @param {string} id */
function keyOnResidual(event, id) {
  if (event.key !== "Enter" && event.key !== " ") return false;
  hideResidual(id);
  return true;
}

/** @param {KeyboardEvent} event @param {Photo} photo @param {string} id */
function keyOnFrame(event, photo, id) {
  const now = photo.history.now;
  const arrow = ARROWS[event.key];
  if (event.key === "Enter" || event.key === " ") {
    edit(photo, edits.toggled(now, id));
  } else if (event.key === "Delete" || event.key === "Backspace") {
    removeFrame(photo, id);
  } else if (arrow) {
    const item = framesOf(photo).find((frame) => frame.id === id);
    const step = Math.max(Math.max(photo.width, photo.height) / 200, 1);
    const [dx, dy] = arrow.map((v) => v * step);
    const change = event.shiftKey ? grownBox : movedBox;
    if (item) edit(photo, edits.moved(now, id, change(item.box, dx, dy, photo)), `keys ${id}`);
  } else return false;
  return true;
}

/** @param {Photo} photo @param {string} id */
function removeFrame(photo, id) {
  const ids = framesOf(photo).map((item) => item.id);
  const neighbour = ids[ids.indexOf(id) + 1] ?? ids[ids.indexOf(id) - 1];
  edit(photo, edits.removed(photo.history.now, id));
  if (neighbour) focusFrame(neighbour);
  else {
    svg.focus();
    state.selected = "";
  }
}

export function undo() {
  if (state.shown) setHistory(state.shown, edits.undone(state.shown.history));
}

export function redo() {
  if (state.shown) setHistory(state.shown, edits.redone(state.shown.history));
}

// Beside the picture, too: a box for a face at the border may begin there.
ground.addEventListener("pointerdown", (event) => {
  const { left, top } = ground.getBoundingClientRect();
  const [x, y] = [event.clientX - left, event.clientY - top]; // not on its scroll bars
  if (x < ground.clientWidth && y < ground.clientHeight && state.view !== "compare") press(event);
});
svg.addEventListener("pointermove", pull);
svg.addEventListener("pointerup", release);
svg.addEventListener("pointercancel", () => {
  drag = null;
  drawEditor();
});
svg.addEventListener("click", click);
svg.addEventListener("keydown", key);
svg.addEventListener("focusin", (event) => {
  const id = /** @type {Element} */ (event.target).getAttribute("data-id") ?? "";
  if (id !== state.selected) {
    state.selected = id;
    changed();
  }
});
