// @ts-check
// A worker that makes small pictures of large ones, so that the page stays quick. A photo is
// decoded once: its thumbnail is made of its preview.

import { previewFactor } from "./boxes.js";

const JPEG_QUALITY = 0.9;

/** @param {ImageBitmap | OffscreenCanvas} picture @param {number} factor */
function shrunk(picture, factor) {
  const width = Math.max(1, Math.round(picture.width * factor));
  const height = Math.max(1, Math.round(picture.height * factor));
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "medium";
  context.drawImage(picture, 0, 0, width, height);
  return canvas;
}

/** @param {OffscreenCanvas} canvas */
function encoded(canvas) {
  return canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
}

self.onmessage = async ({ data: { file, previewSide, thumbnailSide } }) => {
  try {
    const bitmap = await createImageBitmap(file);
    const { width, height } = bitmap;
    const factor = previewSide ? previewFactor({ width, height }, previewSide) : 1;
    const canvas = factor < 1 ? shrunk(bitmap, factor) : null;
    const picture = canvas ?? bitmap;
    const part = Math.min(1, thumbnailSide / Math.max(picture.width, picture.height));
    const small = thumbnailSide ? shrunk(picture, part) : null;
    bitmap.close();
    const preview = canvas && (await encoded(canvas));
    const thumbnail = small && (await encoded(small));
    self.postMessage({ file, width, height, factor, preview, thumbnail });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
