// @ts-check
// Covered photos in full size: one by one, or all in a ZIP that is made while it is downloaded.

import * as api from "./api.js";
import { by, make, show } from "./elements.js";
import { coveredName } from "./options.js";
import { changed, fieldsOf, residualOf, resultKey, state } from "./state.js";
import { words } from "./strings.js";
import { settled } from "./work.js";

/**
 * @typedef {import("./state.js").Photo} Photo
 * @typedef {import("./state.js").Settings} Settings
 */

const KEPT_MS = 60_000; // a download's address stays for so long

/** @type {AbortController | null} */
let running = null;

/** Draws the buttons. */
export function drawDownloads() {
  const photos = state.photos.filter((photo) => photo.state !== "refused");
  const connected = state.connection === "ok";
  by("download", HTMLButtonElement).disabled =
    running !== null || !connected || state.shown?.state !== "ready";
  const all = by("download-all", HTMLButtonElement);
  show(all, photos.length > 1);
  all.disabled = running !== null || !connected || !photos.some((photo) => photo.state === "ready");
  show(by("download-progress"), running !== null);
}

/** Whether a photo's result would be lost with the page. @param {Photo} photo */
export function isUnsaved(photo) {
  return photo.state === "waiting" || photo.state === "detecting" ||
    (photo.state === "ready" && photo.saved !== resultKey(photo));
}

/** What a download asks for. The check is part of it where its outcome is not known yet.
 * @param {Photo} photo @param {Settings} settings @returns {Record<string, string>} */
function fieldsFor(photo, settings) {
  const fields = { ...fieldsOf(photo, settings), priority: "interactive" };
  if (settings.audit) Object.assign(fields, { audit: "true" });
  if (settings.audit || residualOf(photo, settings) === null) Object.assign(fields, { verify: "0" });
  return fields;
}

/** Runs a download; its words and its end are seen to here.
 * @param {(signal: AbortSignal) => Promise<void>} download */
async function run(download) {
  running = new AbortController();
  const { signal } = running;
  progress(0, 1);
  changed();
  try {
    await download(signal);
  } catch (error) {
    const why = error instanceof api.Lost ? words().lost : error instanceof Error ? error.message : "";
    say([signal.aborted ? words().downloadStopped : words().downloadBroke(why)], true);
  }
  running = null;
  changed();
}

/** @param {number} done @param {number} all */
function progress(done, all) {
  const bar = by("download-bar", HTMLProgressElement);
  bar.max = all;
  bar.value = done;
}

/** @param {string[]} lines @param {boolean} isBad */
function say(lines, isBad = false) {
  const said = by("download-said");
  said.replaceChildren(...lines.map((line) => make("p", "", line)));
  said.classList.toggle("bad", isBad);
}

/** @param {Photo} photo */
async function downloadOne(photo) {
  await run(async (signal) => {
    say([words().downloadOne(photo.name)]);
    const key = resultKey(photo);
    const known = residualOf(photo);
    const { picture, audit, left } = await covered(photo, signal);
    const name = coveredName(photo.name, picture.type);
    save(picture, name);
    if (audit) save(new Blob([`${JSON.stringify(audit, null, 2)}\n`]), `${name}.audit.json`);
    photo.saved = key;
    const n = left ?? known?.length ?? 0;
    say([n ? words().downloadedLeft(name, n) : words().downloadedOne(name)], n > 0);
  });
}

/** @param {Photo} photo @param {AbortSignal} signal
 * @returns {Promise<{picture: Blob, audit: object | null, left: number | null}>} */
async function covered(photo, signal) {
  const answer = state.settings.audit ? "json" : "image";
  const response = await api.anonymize(photo.file, { ...fieldsFor(photo, state.settings), answer }, signal);
  if (answer === "image") {
    const left = response.headers.get("unface-residual");
    return { picture: await response.blob(), audit: null, left: left === null ? null : Number(left) };
  }
  const { image, format, audit, verification } = await response.json();
  const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  const picture = new Blob([bytes], { type: `image/${format}` });
  return { picture, audit, left: verification?.residual.length ?? null };
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const address = URL.createObjectURL(blob);
  follow(address, name);
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}

/** @param {string} address @param {string} name */
function follow(address, name) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}

async function downloadAll() {
  await run(async (signal) => {
    const photos = state.photos.filter((photo) => photo.state !== "refused");
    const { settings } = state; // as they are now: one ZIP is covered in one way
    /** @type {Photo[]} */ const saved = [];
    /** @type {string[]} */ const left = [];
    /** @type {string[]} */ const failed = [];
    const archive = await api.openArchive(signal);
    follow(archive, "unface.zip");
    try {
      for (const [i, photo] of photos.entries()) {
        say([words().downloading(i, photos.length)]);
        await settled(photo, signal);
        if (!state.photos.includes(photo)) continue; // taken away in the meantime
        const outcome = photo.state === "ready" ? await addOne(archive, photo, settings, signal) : null;
        if (outcome === null) failed.push(photo.name);
        else {
          saved.push(photo);
          if (outcome > 0) left.push(photo.name);
        }
        progress(i + 1, photos.length);
      }
      await api.closeArchive(archive, signal);
    } catch (error) {
      api.endArchive(archive).catch(() => {}); // it may have ended by itself
      throw error;
    }
    failed.push(...state.photos.filter((photo) => photo.state === "refused").map(({ name }) => name));
    say([
      words().downloaded(saved.length),
      ...(left.length ? [words().downloadLeft(left)] : []),
      ...(failed.length ? [words().downloadFailed(failed)] : []),
    ], left.length + failed.length > 0);
  });
}

/** Puts a photo into the ZIP; returns how many faces are left in it, null if it failed.
 * @param {string} archive @param {Photo} photo @param {Settings} settings
 * @param {AbortSignal} signal */
async function addOne(archive, photo, settings, signal) {
  const key = resultKey(photo, settings);
  const known = residualOf(photo, settings);
  const fields = fieldsFor(photo, settings);
  try {
    const report = await api.addToArchive(archive, photo.name, photo.file, fields, signal);
    photo.saved = key;
    changed(photo);
    return report.verification?.residual.length ?? known?.length ?? 0;
  } catch (error) {
    // Gone: the person ended the download. Anything else is this photo's own trouble.
    if (signal.aborted || error instanceof api.Lost) throw error;
    if (error instanceof api.Problem && [404, 410].includes(error.status)) {
      throw new Error(words().downloadStopped);
    }
    return null;
  }
}

/** Connects the buttons. */
export function connectDownloads() {
  by("download").addEventListener("click", () => state.shown && downloadOne(state.shown));
  by("download-all").addEventListener("click", downloadAll);
  by("download-cancel").addEventListener("click", () => running?.abort());
  window.addEventListener("beforeunload", (event) => {
    if (state.photos.some(isUnsaved)) event.preventDefault();
  });
}
