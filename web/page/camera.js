// @ts-check
// Pictures from a camera. It runs while its window is open, and no longer.

import { by, show } from "./elements.js";
import { addFiles } from "./intake.js";
import { words } from "./strings.js";

const JPEG_QUALITY = 0.95;

const dialog = by("camera", HTMLDialogElement);
const video = by("video", HTMLVideoElement);
/** @type {MediaStream | null} */
let stream = null;
let taken = 0;

/** Opens the window and starts the camera. */
export async function openCamera() {
  taken = 0;
  if (!dialog.open) dialog.showModal();
  say(words().cameraStarting);
  show(by("camera-again"), false);
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    const opened = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
    if (!dialog.open) return stop(opened); // closed while the person was asked
    stop(stream);
    stream = opened;
    video.srcObject = stream;
    await video.play();
    say("");
    by("camera-take", HTMLButtonElement).disabled = false;
    by("camera-take").focus();
  } catch (error) {
    stop(stream);
    say(reason(error));
    show(by("camera-again"), true);
  }
}

/** @param {unknown} error */
function reason(error) {
  const t = words();
  const name = error instanceof DOMException ? error.name : "";
  if (name === "SecurityError") return t.cameraInsecure;
  if (name === "NotAllowedError") return t.cameraRefused;
  if (name === "NotFoundError" || name === "OverconstrainedError") return t.cameraNone;
  return name === "NotReadableError" ? t.cameraBusy : t.wrong;
}

/** @param {string} text */
function say(text) {
  by("camera-said").textContent = text;
}

/** @param {MediaStream | null} running */
function stop(running) {
  for (const track of running?.getTracks() ?? []) track.stop();
  if (running !== stream) return;
  stream = null;
  video.srcObject = null;
  by("camera-take", HTMLButtonElement).disabled = true;
}

async function take() {
  if (!video.videoWidth) return;
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  const picture = await canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
  const time = new Date().toISOString().slice(0, 19).replace("T", "-").replaceAll(":", "");
  taken += 1;
  await addFiles([new File([picture], `camera-${time}.jpg`, { type: "image/jpeg" })]);
  say(words().cameraTaken(taken));
}

by("camera-take").addEventListener("click", take);
by("camera-again").addEventListener("click", openCamera);
by("camera-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => stop(stream));
by("camera-take", HTMLButtonElement).disabled = true;
