// @ts-check
// Calls to the server. Errors are `Problem` (the server's own words) or `Lost` (no server).

import { changed, state } from "./state.js";
import { words } from "./strings.js";

const MOST_WAIT_MS = 10_000;
const TRIES = 3;

/** What the server says is wrong (RFC 9457). */
export class Problem extends Error {
  /** @param {number} status @param {Record<string, unknown>} body */
  constructor(status, body) {
    super(String(body.detail || body.title || `HTTP ${status}`));
    this.status = status;
    this.reason = String(body.reason ?? "");
    this.retryMs = Number(body.retry_ms ?? 0);
  }
}

/** The server cannot be reached, or wants a token first: the work waits. */
export class Lost extends Error {}

/** The file has gone since it was chosen. */
export class Unreadable extends Error {}

/** @param {string} path @param {RequestInit} init */
async function call(path, init = {}) {
  const headers = new Headers(init.headers);
  if (state.token) headers.set("authorization", `Bearer ${state.token}`);
  let response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Lost(String(error));
  }
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  /** @type {Record<string, unknown>} */
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // Not the server's own answer, such as a proxy's page: the status says it.
  }
  throw new Problem(response.status, body);
}

/**
 * Calls with a file, as often as it takes: waits where the server says that too much is waiting,
 * and tells a file that cannot be read from a server that is gone.
 * @param {string} path @param {Blob} file @param {() => BodyInit} body
 * @param {AbortSignal} signal
 */
async function send(path, file, body, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await call(path, { method: "POST", body: body(), signal });
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof Problem && error.reason === "Overloaded") {
        await pause(Math.min(Math.max(error.retryMs, 200), MOST_WAIT_MS), signal);
        tries -= 1;
      } else if (error instanceof Problem && error.status === 401) {
        askForToken();
        throw new Lost("token");
      } else if (error instanceof Problem && error.reason === "Closed") {
        lose();
        throw new Lost("closed");
      } else if (error instanceof Problem && error.reason === "WorkerLost" && tries < TRIES) {
        await pause(500 * tries, signal);
      } else if (error instanceof Lost) {
        await readable(file);
        if (!(await answers())) throw error;
        if (tries >= TRIES) throw new Error(words().broke);
      } else throw error;
    }
  }
}

/** @param {Blob} file */
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Unreadable(words().fileUnreadable);
  }
}

/** @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** @param {Record<string, string>} fields @param {Blob} file */
function form(fields, file) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  data.append("image", file, "picture");
  return data;
}

/** Finds the faces of a photo. @param {Blob} file @param {Record<string, string>} fields
 * @param {AbortSignal} signal */
export async function detect(file, fields, signal) {
  // What it is shows in its bytes; the type that the system gives it by its name may be any.
  const body = file.slice(0, file.size, "application/octet-stream");
  const response = await send(`v1/detect?${new URLSearchParams(fields)}`, file, () => body, signal);
  return response.json();
}

/** Covers a picture; the answer as the fields ask for it. @param {Blob} file
 * @param {Record<string, string>} fields @param {AbortSignal} signal */
export function anonymize(file, fields, signal) {
  return send("v1/anonymize", file, () => form(fields, file), signal);
}

/** Opens a ZIP that is downloaded while it is made; returns its address.
 * @param {AbortSignal} signal */
export async function openArchive(signal) {
  const response = await call("v1/archives", { method: "POST", signal });
  const { id } = await response.json();
  return `v1/archives/${encodeURIComponent(id)}`;
}

/** @param {string} archive @param {string} name @param {Blob} file
 * @param {Record<string, string>} fields @param {AbortSignal} signal */
export async function addToArchive(archive, name, file, fields, signal) {
  const path = `${archive}/files?${new URLSearchParams({ name })}`;
  return (await send(path, file, () => form(fields, file), signal)).json();
}

/** @param {string} archive @param {AbortSignal} signal */
export function closeArchive(archive, signal) {
  return call(`${archive}/close`, { method: "POST", signal });
}

/** Ends a ZIP at once, unfinished. @param {string} archive */
export function endArchive(archive) {
  return call(archive, { method: "DELETE", keepalive: true });
}

/** Whether the server answers; takes what it says about itself. */
export async function answers() {
  try {
    const info = await (await call("v1/info")).json();
    const profiles = /** @type {any[]} */ (info.profiles ?? []);
    state.info = {
      ...info,
      threads: Number(info.threads ?? 0),
      maxBytes: Number(info.limits?.max_bytes ?? Infinity),
      maxPixels: Number(info.limits?.max_pixels ?? Infinity),
      profiles: profiles.map(({ name, precision, thresholds }) => ({
        name, precision, threshold: Number(thresholds[2]), // O-Net's: the least score
      })),
    };
  } catch (error) {
    if (error instanceof Problem && error.status === 401) askForToken();
    else lose();
    return false;
  }
  state.connection = "ok";
  changed();
  return true;
}

const LOST_ASK_MS = 2000;
let asking = false;

/** The server is gone: asks until it is back. */
function lose() {
  state.connection = "lost";
  changed();
  if (asking) return;
  asking = true;
  setTimeout(() => {
    asking = false;
    if (state.connection === "lost") void answers();
  }, LOST_ASK_MS);
}

function askForToken() {
  state.connection = "token";
  changed();
}
