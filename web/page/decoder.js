// @ts-check
// A worker that makes small pictures of large ones, so that the page stays quick. A photo is
// decoded once: its thumbnail is made of its preview.

import { previewFactor } from "./boxes.js";
import { orientationOf, uprightMatrix } from "./exif.js";

const JPEG_QUALITY = 0.9;

/** @param {ImageBitmap | OffscreenCanvas} picture @param {number} factor
 * @param {number} orientation of the picture: what is made is upright */
function shrunk(picture, factor, orientation = 1) {
  const sides = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * factor)));
  const [width, height] = orientation > 4 ? sides.reverse() : sides;
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "medium";
  context.setTransform(...uprightMatrix(orientation, width, height));
  context.drawImage(picture, 0, 0, 1, 1);
  return canvas;
}

/** @param {OffscreenCanvas} canvas */
function encoded(canvas) {
  return canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
}

self.onmessage = async ({ data: { file, kind, previewSide, thumbnailSide } }) => {
  try {
    const orientation = kind === "webp" ? await orientationOf(file) : 1;
    // Turned here, then, also where a browser would do it.
    const how = /** @type {ImageBitmapOptions} */ (orientation > 1 ? { imageOrientation: "none" } : {});
    const bitmap = await createImageBitmap(file, how);
    const stored = [bitmap.width, bitmap.height];
    const [width, height] = orientation > 4 ? stored.reverse() : stored;
    const factor = previewSide ? previewFactor({ width, height }, previewSide) : 1;
    // A small photo is its own preview.
    const canvas = previewSide && (factor < 1 || orientation > 1) ? shrunk(bitmap, factor, orientation) : null;
    const part = Math.min(1, thumbnailSide / Math.max(canvas?.width ?? width, canvas?.height ?? height));
    const small = part ? shrunk(canvas ?? bitmap, part, canvas ? 1 : orientation) : null;
    bitmap.close();
    const preview = canvas && (await encoded(canvas));
    const thumbnail = small && (await encoded(small));
    self.postMessage({ width, height, factor, preview, thumbnail });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
