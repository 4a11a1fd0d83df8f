// What is sent to the server, and what a file is told by.

import assert from "node:assert/strict";
import { test } from "node:test";

import { examined, kindOf } from "../../web/page/kinds.js";
import * as options from "../../web/page/options.js";

const settings = options.usualSettings();
const bytes = (...values) => new Uint8Array(values);
const letters = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const limits = { formats: ["jpeg", "png", "webp"], maxBytes: 1000 };

test("only the fields of the method are sent", () => {
  const sent = (method) => Object.keys(options.maskFields({ ...settings, method })).sort();
  assert.deepEqual(sent("mosaic"), ["cells", "margin", "method", "shape"]);
  assert.deepEqual(sent("blur"), ["kernel", "margin", "method", "shape"]);
  assert.deepEqual(sent("solid"), ["color", "margin", "method", "shape"]);
});

test("a colour is sent as three numbers", () => {
  const fields = options.maskFields({ ...settings, method: "solid", color: "#ff8001" });
  assert.equal(fields.color, "255,128,1");
});

test("the decided boxes alone are covered, scaled with the picture", () => {
  const fields = options.coverFields(settings, [[10, 20, 30, 40]], [[1, 2, 3, 4]], 0.5);
  assert.equal(fields.cover_only, "true");
  assert.equal(fields.cover, "[[5,10,15,20]]");
  assert.equal(fields.keep, "[[0.5,1,1.5,2]]");
  assert.ok(!("cover" in options.coverFields(settings, [], [])));
});

test("more strength is fewer cells and a larger kernel, over its whole range", () => {
  for (const method of ["mosaic", "blur"]) {
    for (let strength = 1; strength <= options.mostStrength(method); strength++) {
      const chosen = options.withStrength({ ...settings, method }, strength);
      assert.equal(options.strengthOf(chosen), strength);
      assert.ok(2 <= chosen.cells && chosen.cells <= 8, `${chosen.cells} cells`);
      assert.ok(0.3 <= chosen.kernel && chosen.kernel <= 2, `kernel ${chosen.kernel}`);
    }
  }
  assert.equal(options.withStrength(settings, 7).cells, 2);
});

test("the covered file is named after the photo and its format", () => {
  assert.equal(options.coveredName("a.b.jpeg", "image/jpeg"), "a.b-unface.jpeg");
  assert.equal(options.coveredName("scan.PNG", "image/png"), "scan-unface.png");
  assert.equal(options.coveredName("photo", "image/webp"), "photo-unface.webp");
  assert.equal(options.coveredName(".jpg", "image/jpeg"), ".jpg-unface.jpg");
});

test("a file is told by its first bytes, not by its name", () => {
  assert.equal(kindOf(bytes(0xff, 0xd8, 0xff, 0xe0)), "jpeg");
  assert.equal(kindOf(letters("\x89PNG\r\n\x1a\n\0\0")), "png");
  assert.equal(kindOf(letters("RIFF\0\0\0\0WEBPVP8 ")), "webp");
  assert.equal(kindOf(letters("\0\0\0\x18ftypheic")), "heic");
  assert.equal(kindOf(letters("\0\0\0\x18ftypmp42")), "video");
  assert.equal(kindOf(letters("hello")), "unknown");
  assert.equal(kindOf(bytes()), "unknown");
});

test("a WebP with EXIF may be turned", async () => {
  const turned = async (...parts) => (await examined(new Blob(parts), limits)).isTurned;
  const webp = (flags) => ["RIFF\0\0\0\0WEBPVP8X\n\0\0\0", bytes(flags)];
  assert.equal(await turned(...webp(8)), true);
  assert.equal(await turned(...webp(16)), false);
  assert.equal(await turned("RIFF\0\0\0\0WEBPVP8 \n\0\0\0", bytes(8)), false);
  assert.equal(await turned(bytes(0xff, 0xd8, 0xff, 0xe1)), false);
});

test("each file that cannot be taken has its reason", async () => {
  const reason = async (...parts) => (await examined(new Blob(parts), limits)).reason;
  const jpeg = bytes(0xff, 0xd8, 0xff, 0xe0);
  assert.equal(await reason(jpeg), "");
  assert.equal(await reason(), "fileEmpty");
  assert.equal(await reason("hello"), "fileUnknown");
  assert.equal(await reason("GIF89a"), "fileFormat");
  assert.equal(await reason("\0\0\0\x18ftypheic"), "fileHeic");
  assert.equal(await reason(jpeg, new Uint8Array(1000)), "fileLarge");
  const gone = { size: 9, slice: () => ({ arrayBuffer: () => Promise.reject(new Error("gone")) }) };
  assert.equal((await examined(gone, limits)).reason, "fileUnreadable");
});
