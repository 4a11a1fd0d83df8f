// @ts-check
// What a person decided about the faces of one photo, and undo. Nothing here is changed in place.

import { area, overlap } from "./boxes.js";

/**
 * @typedef {import("./boxes.js").Box} Box
 * @typedef {{id: string, box: Box, score: number, landmarks: Record<string, number[]>}} Face
 * @typedef {{id: string, box: Box, source: "drawn" | "check", score: number | null}} Added
 *
 * `kept` stay visible, `removed` are no faces, `moved` have another box, `added` were not found.
 * @typedef {{kept: readonly string[], removed: readonly string[],
 *   moved: Readonly<Record<string, Box>>, added: readonly Added[]}} Edits
 *
 * `tag` names the last step: a step with the same tag joins it.
 * @typedef {{past: readonly Edits[], now: Edits, future: readonly Edits[], tag: string}} History
 *
 * One frame in the picture.
 * @typedef {{id: string, box: Box, hidden: boolean, source: "found" | "drawn" | "check",
 *   score: number | null, landmarks: Record<string, number[]> | null}} Item
 */

const SAME_FACE = 0.5; // IoU, as the server's own keep-list

/** @type {Edits} */
export const NO_EDITS = Object.freeze({ kept: [], removed: [], moved: {}, added: [] });

/** @returns {History} */
export function newHistory() {
  return { past: [], now: NO_EDITS, future: [], tag: "" };
}

/** Adds a step. @param {History} history @param {Edits} edits @param {string} tag
 * @returns {History} */
export function recorded(history, edits, tag = "") {
  if (edits === history.now) return history;
  const joins = tag !== "" && tag === history.tag;
  const past = joins ? history.past : [...history.past, history.now];
  return { past, now: edits, future: [], tag };
}

/** @param {History} history @returns {History} */
export function undone(history) {
  const before = history.past.at(-1);
  if (!before) return history;
  const future = [history.now, ...history.future];
  return { past: history.past.slice(0, -1), now: before, future, tag: "" };
}

/** @param {History} history @returns {History} */
export function redone(history) {
  const [next, ...future] = history.future;
  return next ? { past: [...history.past, history.now], now: next, future, tag: "" } : history;
}

/** Hides what is kept and keeps what is hidden. @param {Edits} edits @param {string} id
 * @returns {Edits} */
export function toggled(edits, id) {
  return toggledAll(edits, [id], edits.kept.includes(id));
}

/** Hides or keeps many. @param {Edits} edits @param {string[]} ids @param {boolean} hide
 * @returns {Edits} */
export function toggledAll(edits, ids, hide) {
  const others = edits.kept.filter((id) => !ids.includes(id));
  return { ...edits, kept: hide ? others : [...others, ...ids] };
}

/** @param {Edits} edits @param {string} id @param {Box} box @returns {Edits} */
export function moved(edits, id, box) {
  return { ...edits, moved: { ...edits.moved, [id]: box } };
}

/** Takes a frame away: a drawn one is gone, a found one is known to be no face.
 * @param {Edits} edits @param {string} id @returns {Edits} */
export function removed(edits, id) {
  const { [id]: _, ...boxes } = edits.moved;
  const added = edits.added.filter((a) => a.id !== id);
  const kept = edits.kept.filter((k) => k !== id);
  const gone = added.length < edits.added.length ? edits.removed : [...edits.removed, id];
  return { kept, removed: gone, moved: boxes, added };
}

/** @param {Edits} edits @param {readonly Added[]} more @param {boolean} hide @returns {Edits} */
export function added(edits, more, hide = true) {
  const kept = hide ? edits.kept : [...edits.kept, ...more.map((a) => a.id)];
  return { ...edits, added: [...edits.added, ...more], kept };
}

/** The frames: faces above the threshold, those somebody decided about, and what was drawn; large
 * ones first, so that a small one is never under a large one.
 * @param {readonly Face[]} faces @param {Edits} edits @param {number} threshold
 * @returns {Item[]} */
export function frames(faces, edits, threshold) {
  const known = new Set(faces.map((face) => face.id));
  const lost = Object.keys(edits.moved).filter(
    (id) => !known.has(id) && !edits.added.some((a) => a.id === id),
  );
  const base = [
    ...faces
      .filter((face) => face.score > threshold || decided(edits, face.id))
      .map((face) => ({ ...face, source: /** @type {const} */ ("found") })),
    // Moved by hand, and another profile does not find it: it must not come back into view.
    ...lost.map((id) => ({
      id, box: edits.moved[id], score: null, landmarks: null, source: /** @type {const} */ ("drawn"),
    })),
    ...edits.added.map((a) => ({ ...a, landmarks: null })),
  ];
  return base
    .filter((item) => !edits.removed.includes(item.id))
    .sort((a, b) => area(b.box) - area(a.box))
    .map((item) => ({
      ...item,
      box: edits.moved[item.id] ?? item.box,
      landmarks: edits.moved[item.id] ? null : item.landmarks,
      hidden: !edits.kept.includes(item.id),
    }));
}

/** @param {Edits} edits @param {string} id */
function decided(edits, id) {
  return id in edits.moved || edits.kept.includes(id);
}

/** The boxes to cover, and those that a check passes over.
 * @param {readonly Face[]} faces @param {Edits} edits @param {number} threshold
 * @returns {{cover: Box[], keep: Box[]}} */
export function decisions(faces, edits, threshold) {
  const items = frames(faces, edits, threshold);
  const noFaces = faces.filter((face) => edits.removed.includes(face.id));
  return {
    cover: items.filter((item) => item.hidden).map((item) => item.box),
    keep: [...items.filter((item) => !item.hidden), ...noFaces].map((item) => item.box),
  };
}

/** Names new faces; one that was found before gets its old name, so that decisions stay with it.
 * @param {readonly Omit<Face, "id">[]} found @param {readonly Face[]} known all found so far
 * @param {() => string} newName @returns {Face[]} */
export function namedFaces(found, known, newName) {
  const free = new Map(known.map((face) => [face.id, face.box]));
  return found.map((face) => {
    let [best, most] = ["", SAME_FACE];
    for (const [id, box] of free) {
      const share = overlap(box, face.box);
      if (share >= most) [best, most] = [id, share];
    }
    free.delete(best);
    return { ...face, id: best || newName() };
  });
}
