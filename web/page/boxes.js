// @ts-check
// Geometry of boxes. Pure functions, so that they can be tested without a browser.

/**
 * x1, y1, x2, y2 in pixels of the upright picture.
 * @typedef {[number, number, number, number]} Box
 * @typedef {{width: number, height: number}} Size
 */

/** The least side of a box in a picture, so that none gets lost. @param {Size} size */
export function leastSide({ width, height }) {
  return Math.min(Math.max(4, Math.max(width, height) / 250), width, height);
}

/** How much smaller a preview is: its longer side has `side` pixels, or more where the picture is
 * so long that nothing of it could be told. @param {Size} size @param {number} side */
export function previewFactor({ width, height }, side) {
  const [long, short] = [Math.max(width, height), Math.min(width, height)];
  return Math.min(1, Math.max(side / long, Math.min(side / 4 / short, (side * 5) / long)));
}

/** @param {number} value @param {number} low @param {number} high */
export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** Moves a box; it keeps its size and stays inside the picture.
 * @param {Box} box @param {number} dx @param {number} dy @param {Size} size @returns {Box} */
export function movedBox([x1, y1, x2, y2], dx, dy, size) {
  dx = clamp(dx, -x1, Math.max(size.width - x2, -x1));
  dy = clamp(dy, -y1, Math.max(size.height - y2, -y1));
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

/** Moves the sides that `handle` names: any of the letters n, e, s, w.
 * @param {Box} box @param {string} handle @param {number} dx @param {number} dy @param {Size} size
 * @returns {Box} */
export function resizedBox([x1, y1, x2, y2], handle, dx, dy, size) {
  const least = leastSide(size);
  if (handle.includes("w")) x1 = clamp(x1 + dx, 0, Math.max(x2 - least, 0));
  if (handle.includes("e")) x2 = clamp(x2 + dx, Math.min(x1 + least, size.width), size.width);
  if (handle.includes("n")) y1 = clamp(y1 + dy, 0, Math.max(y2 - least, 0));
  if (handle.includes("s")) y2 = clamp(y2 + dy, Math.min(y1 + least, size.height), size.height);
  return [x1, y1, x2, y2];
}

/** Grows a box on the right and at the bottom, as shift and an arrow key do; what does not fit
 * there grows on the other side.
 * @param {Box} box @param {number} dx @param {number} dy @param {Size} size @returns {Box} */
export function grownBox([x1, y1, x2, y2], dx, dy, size) {
  const least = leastSide(size);
  const width = clamp(x2 - x1 + dx, least, size.width);
  const height = clamp(y2 - y1 + dy, least, size.height);
  x1 = Math.min(x1, size.width - width);
  y1 = Math.min(y1, size.height - height);
  return [x1, y1, x1 + width, y1 + height];
}

/** The box between two points, cut at the picture's border.
 * @param {number[]} from @param {number[]} to @param {Size} size @returns {Box} */
export function boxBetween(from, to, size) {
  const [ax, bx] = [from[0], to[0]].map((x) => clamp(x, 0, size.width));
  const [ay, by] = [from[1], to[1]].map((y) => clamp(y, 0, size.height));
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}

/** @param {Box} box */
export function area([x1, y1, x2, y2]) {
  return Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
}

/** Intersection over union. @param {Box} a @param {Box} b */
export function overlap(a, b) {
  const shared = area([
    Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3]),
  ]);
  return shared === 0 ? 0 : shared / (area(a) + area(b) - shared);
}

/** Boxes for a smaller picture, as numbers that are short to send.
 * @param {Box[]} boxes @param {number} factor @returns {Box[]} */
export function scaledBoxes(boxes, factor) {
  return boxes.map((box) => /** @type {Box} */ (box.map((v) => Math.round(v * factor * 100) / 100)));
}
