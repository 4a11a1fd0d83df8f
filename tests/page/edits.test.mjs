// What a person decides about faces, and undo. `node --test tests/page/`

import assert from "node:assert/strict";
import { test } from "node:test";

import * as edits from "../../web/page/edits.js";

const box = (x, side = 10) => [x, 0, x + side, side];
const face = (id, x, score, side) => ({ id, box: box(x, side), score, landmarks: {} });
const faces = [face("f1", 0, 0.99), face("f2", 100, 0.6), face("f3", 200, 0.35)];
const ids = (items) => items.map((item) => item.id).sort();

test("only faces above the threshold are framed", () => {
  assert.deepEqual(ids(edits.frames(faces, edits.NO_EDITS, 0.3)), ["f1", "f2", "f3"]);
  assert.deepEqual(ids(edits.frames(faces, edits.NO_EDITS, 0.6)), ["f1"]);
  assert.deepEqual(edits.frames([], edits.NO_EDITS, 0.3), []);
});

test("a face that was decided about stays framed whatever the threshold", () => {
  const kept = edits.toggled(edits.NO_EDITS, "f3");
  const moved = edits.moved(edits.NO_EDITS, "f2", box(110));
  assert.deepEqual(ids(edits.frames(faces, kept, 0.9)), ["f1", "f3"]);
  assert.deepEqual(ids(edits.frames(faces, moved, 0.9)), ["f1", "f2"]);
});

test("keeping a face takes it from what is covered, and hiding it puts it back", () => {
  const kept = edits.toggled(edits.NO_EDITS, "f1");
  assert.deepEqual(edits.decisions(faces, kept, 0.7), { cover: [], keep: [box(0)] });
  const hidden = edits.toggled(kept, "f1");
  assert.deepEqual(edits.decisions(faces, hidden, 0.7), { cover: [box(0)], keep: [] });
});

test("all faces are kept or hidden in one step, and others stay as they are", () => {
  const one = edits.toggled(edits.NO_EDITS, "x");
  const all = edits.toggledAll(one, ["f1", "f2"], false);
  assert.deepEqual([...all.kept].sort(), ["f1", "f2", "x"]);
  assert.deepEqual(edits.toggledAll(all, ["f1", "f2"], true).kept, ["x"]);
});

test("a moved face is covered at its new place, without its points", () => {
  const moved = edits.moved(edits.NO_EDITS, "f1", box(33));
  assert.deepEqual(edits.decisions(faces, moved, 0.7).cover, [box(33)]);
  assert.equal(edits.frames(faces, moved, 0.7)[0].landmarks, null);
});

test("a moved face that another profile does not find is still covered", () => {
  const moved = edits.moved(edits.NO_EDITS, "f1", box(33));
  assert.deepEqual(edits.decisions([], moved, 0.7).cover, [box(33)]);
});

test("a drawn box is covered, can be moved, and is gone once removed", () => {
  const drawn = edits.added(edits.NO_EDITS, [{ id: "d", box: box(50), source: "drawn", score: null }]);
  const moved = edits.moved(drawn, "d", box(60));
  assert.deepEqual(edits.decisions([], moved, 0.7).cover, [box(60)]);
  const gone = edits.removed(moved, "d");
  assert.deepEqual(edits.decisions([], gone, 0.7), { cover: [], keep: [] });
});

test("a found box that was removed is passed over by the check", () => {
  const gone = edits.removed(edits.NO_EDITS, "f1");
  assert.deepEqual(edits.decisions(faces, gone, 0.7), { cover: [], keep: [box(0)] });
  assert.deepEqual(edits.frames(faces, gone, 0.7), []);
});

test("what the check found can be hidden or left visible", () => {
  const more = [{ id: "r", box: box(50), source: "check", score: 0.5 }];
  assert.deepEqual(edits.decisions([], edits.added(edits.NO_EDITS, more), 0.7).cover, [box(50)]);
  const left = edits.added(edits.NO_EDITS, more, false);
  assert.deepEqual(edits.decisions([], left, 0.7), { cover: [], keep: [box(50)] });
});

test("small frames come after large ones, so that they can be clicked", () => {
  const items = edits.frames([face("small", 0, 0.9, 5), face("large", 0, 0.8, 50)], edits.NO_EDITS, 0.5);
  assert.deepEqual(items.map((item) => item.id), ["large", "small"]);
});

test("undo and redo walk through the steps, and a new step ends redo", () => {
  const [a, b] = [edits.toggled(edits.NO_EDITS, "f1"), edits.removed(edits.NO_EDITS, "f2")];
  let history = edits.recorded(edits.recorded(edits.newHistory(), a), b);
  history = edits.undone(history);
  assert.equal(history.now, a);
  assert.equal(edits.redone(history).now, b);
  history = edits.undone(history);
  assert.equal(history.now, edits.NO_EDITS);
  assert.equal(edits.undone(history), history);
  history = edits.recorded(history, b);
  assert.equal(edits.redone(history), history);
});

test("steps with the same tag are undone as one", () => {
  let history = edits.newHistory();
  for (const x of [1, 2, 3]) {
    history = edits.recorded(history, edits.moved(history.now, "f1", box(x)), "keys f1");
  }
  history = edits.recorded(history, edits.moved(history.now, "f2", box(9)), "keys f2");
  assert.deepEqual(edits.undone(history).now.moved, { f1: box(3) });
  assert.equal(edits.undone(edits.undone(history)).now, edits.NO_EDITS);
});

test("nothing is changed in place", () => {
  const deep = (value) => {
    for (const part of Object.values(value)) if (typeof part === "object" && part) deep(part);
    return Object.freeze(value);
  };
  const start = deep({ kept: ["f1"], removed: [], moved: { f1: box(3) }, added: [] });
  for (const change of [
    (e) => edits.toggled(e, "f1"), (e) => edits.toggledAll(e, ["f2"], false),
    (e) => edits.moved(e, "f1", box(4)), (e) => edits.removed(e, "f1"),
    (e) => edits.added(e, [{ id: "d", box: box(1), source: "drawn", score: null }]),
  ]) assert.notEqual(change(start), start);
});

test("a face found again keeps its name, and each name is given once", () => {
  let names = 10;
  const newName = () => `f${++names}`;
  const { id: _, ...same } = face("", 1, 0.8);
  const found = edits.namedFaces([same, same, { ...same, box: box(500) }], faces, newName);
  assert.deepEqual(found.map((f) => f.id), ["f1", "f11", "f12"]);
  assert.deepEqual(edits.namedFaces([], faces, newName), []);
});
