// Geometry of boxes: whatever a hand does, a box stays in the picture and in order.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as boxes from "../../web/page/boxes.js";

const size = { width: 400, height: 300 };

function holds([x1, y1, x2, y2]) {
  assert.ok(0 <= x1 && x1 <= x2 && x2 <= size.width, `${[x1, x2]}`);
  assert.ok(0 <= y1 && y1 <= y2 && y2 <= size.height, `${[y1, y2]}`);
}

/** Numbers that are the same in every run. */
function* numbers(count) {
  let seed = 7;
  for (let i = 0; i < count; i++) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    yield seed / 2147483648;
  }
}

test("a moved box keeps its size and stays in the picture", () => {
  assert.deepEqual(boxes.movedBox([10, 20, 50, 60], 5, -7, size), [15, 13, 55, 53]);
  assert.deepEqual(boxes.movedBox([10, 20, 50, 60], -99, 999, size), [0, 260, 40, 300]);
});

test("a handle moves the sides it names, and no further than the other side", () => {
  assert.deepEqual(boxes.resizedBox([10, 20, 50, 60], "se", 5, 6, size), [10, 20, 55, 66]);
  assert.deepEqual(boxes.resizedBox([10, 20, 50, 60], "n", 5, 6, size), [10, 26, 50, 60]);
  assert.deepEqual(boxes.resizedBox([10, 20, 50, 60], "w", 999, 0, size), [46, 20, 50, 60]);
});

test("a box grows to the other side where the picture ends", () => {
  assert.deepEqual(boxes.grownBox([300, 20, 400, 60], 10, 0, size), [290, 20, 400, 60]);
  assert.deepEqual(boxes.grownBox([300, 20, 400, 60], 999, -999, size), [0, 20, 400, 24]);
});

test("a box is drawn in any direction and cut at the border", () => {
  assert.deepEqual(boxes.boxBetween([90, 80], [10, -5], size), [10, 0, 90, 80]);
  assert.deepEqual(boxes.boxBetween([500, 500], [900, 900], size), [400, 300, 400, 300]);
});

test("no drag leaves the picture", () => {
  const random = numbers(20_000);
  const next = (low, high) => low + random.next().value * (high - low);
  for (let i = 0; i < 1000; i++) {
    const start = boxes.boxBetween([next(0, 380), next(0, 280)], [next(0, 400), next(0, 300)], size);
    if (start[2] - start[0] < 4 || start[3] - start[1] < 4) continue;
    const [dx, dy] = [next(-600, 600), next(-600, 600)];
    holds(boxes.movedBox(start, dx, dy, size));
    holds(boxes.grownBox(start, dx, dy, size));
    for (const handle of ["n", "e", "s", "w", "nw", "ne", "sw", "se"]) {
      const box = boxes.resizedBox(start, handle, dx, dy, size);
      holds(box);
      assert.ok(box[2] - box[0] >= 3.999 && box[3] - box[1] >= 3.999, `${box}`);
    }
  }
});

test("overlap is 1 for a box with itself, 0 beside it, a third for half of it", () => {
  assert.equal(boxes.overlap([0, 0, 10, 10], [0, 0, 10, 10]), 1);
  assert.equal(boxes.overlap([0, 0, 10, 10], [10, 0, 20, 10]), 0);
  assert.ok(Math.abs(boxes.overlap([0, 0, 10, 10], [5, 0, 15, 10]) - 1 / 3) < 1e-9);
  assert.equal(boxes.overlap([1, 1, 1, 1], [1, 1, 1, 1]), 0);
});

test("a preview is small, but not too low to tell anything", () => {
  const factor = (width, height) => boxes.previewFactor({ width, height }, 1600);
  assert.equal(factor(1600, 1200), 1);
  assert.equal(factor(1, 900), 1);
  assert.equal(factor(4000, 3000), 0.4);
  assert.equal(factor(3000, 4000), 0.4);
  assert.equal(factor(20000, 400), 0.4); // 8000 x 160
  assert.equal(factor(4000, 800), 0.5); // 2000 x 400
});

test("boxes for a smaller picture are short numbers", () => {
  assert.deepEqual(boxes.scaledBoxes([[1, 2, 3.3333333, 4]], 0.4), [[0.4, 0.8, 1.33, 1.6]]);
  assert.deepEqual(boxes.scaledBoxes([], 0.4), []);
});
