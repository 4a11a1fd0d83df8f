// @ts-check
// How photos come in: dropped, pasted, chosen, a folder. Each file is named in the queue, also one
// that cannot be taken.

import { by, show } from "./elements.js";
import { examined } from "./kinds.js";
import { changed, newPhoto, state } from "./state.js";
import { words } from "./strings.js";

/** @typedef {import("./state.js").Photo} Photo */

const EXAMINED_AT_ONCE = 20; // then the page draws

/** Adds files to the queue. @param {Iterable<File>} files */
export async function addFiles(files) {
  const photos = [...files].map(newPhoto);
  if (!photos.length) return;
  state.photos.push(...photos);
  state.shown ??= photos[0];
  // Drawn once the first is examined: its search starts with the same frame.
  for (let i = 0; i < photos.length; i += EXAMINED_AT_ONCE) {
    await Promise.all(photos.slice(i, i + EXAMINED_AT_ONCE).map(examine));
  }
}

/** @param {Photo} photo */
async function examine(photo) {
  const { kind, reason, isTurned } = await examined(photo.file, limits());
  photo.kind = kind;
  photo.reason = reason;
  photo.byServer = isTurned ?? false;
  photo.state = reason ? "refused" : "waiting";
  if (reason && photo === state.shown) {
    // A picture is better to look at than what was refused.
    state.shown = state.photos.find((p) => p.state !== "refused") ?? photo;
  }
  changed(photo);
  changed();
}

function limits() {
  return state.info ?? { formats: ["jpeg", "png", "webp"], maxBytes: Infinity };
}

/** Why a photo was refused or failed. @param {Photo} photo */
export function messageOf({ state: step, reason, message, kind, file }) {
  const t = words();
  const { formats, maxBytes } = limits();
  if (step !== "refused") return message;
  if (reason === "fileFormat") return t.fileFormat(kind, names(formats));
  if (reason === "fileLarge") return t.fileLarge(file.size, maxBytes);
  return t[/** @type {"fileUnknown" | "fileEmpty" | "fileUnreadable" | "fileHeic"} */ (reason)];
}

/** Formats as people write them. @param {string[]} formats */
export function names(formats) {
  return formats.map((format) => (format === "webp" ? "WebP" : format.toUpperCase()));
}

/** The files of what was dropped, with all folders in it.
 * @param {DataTransfer} transfer @returns {Promise<File[]>} */
async function droppedFiles(transfer) {
  // Entries must be taken before the first wait: they are gone after it.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = await Promise.all(entries.map((entry) => filesIn(/** @type {any} */ (entry))));
  return files.flat();
}

/** @param {FileSystemEntry} entry @returns {Promise<File[]>} */
async function filesIn(entry) {
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    return new Promise((resolve) => {
      // One that cannot be opened is named as such: an empty stand-in would say something else.
      file.file((found) => resolve([found]), () => resolve([unreadable(entry.name)]));
    });
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const files = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return files;
    for (const each of some) files.push(...(await filesIn(each)));
  }
}

/** @param {string} name */
function unreadable(name) {
  const file = new File([], name);
  file.slice = () => {
    throw new DOMException("cannot be opened", "NotReadableError");
  };
  return file;
}

/** Connects what photos come in by. @param {{camera: () => void}} actions */
export function connectIntake({ camera }) {
  for (const button of document.querySelectorAll("[data-add]")) {
    const way = /** @type {HTMLElement} */ (button).dataset.add;
    button.addEventListener("click", () => (way === "camera" ? camera() : by(way ?? "").click()));
  }
  for (const id of ["files", "folder"]) {
    const input = by(id, HTMLInputElement);
    input.addEventListener("change", () => {
      void addFiles(input.files ?? []);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.preventDefault();
    void addFiles(files);
  });
  connectDrop();
}

function connectDrop() {
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser opens the file
    show(by("drop"), true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) show(by("drop"), false);
  });
  document.addEventListener("drop", async (event) => {
    show(by("drop"), false);
    if (!event.dataTransfer || !hasFiles(event)) return;
    event.preventDefault();
    await addFiles(await droppedFiles(event.dataTransfer));
  });
}
