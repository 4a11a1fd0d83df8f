// @ts-check
// The page as it starts: what serves, the language, and the ways in which photos come.

import { answers } from "./api.js";
import { by, make, show } from "./elements.js";
import { connectIntake, names } from "./intake.js";
import { changed, listen, state } from "./state.js";
import { chooseLanguage, chosenLanguage, words } from "./strings.js";

const DESK_MS = 300; // then the rest is loaded, whatever happens
const RETRY_MS = 2000;

/** What serves, and where. */
function drawServer() {
  const { info, connection } = state;
  show(by("lost"), connection === "lost");
  show(by("token"), connection === "token");
  by("token-words").textContent = state.token ? words().tokenWrong : words().tokenNeeded;
  if (!info) return;
  const profile = info.profiles.find(({ name }) => name === state.settings.profile);
  const by_ = [info.device, info.backend, profile?.precision || info.precision];
  const isLocal = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);
  const place = isLocal ? words().local : location.host;
  const threads = info.device ? 0 : info.threads;
  by("truth-text").textContent = words().truth(place, by_.filter(Boolean).join(" "), threads);
  by("version").textContent = `unface ${info.version}`;
  by("limits").textContent = words().limits(names(info.formats), info.maxBytes, info.maxPixels);
}

function drawKeys() {
  by("keys").replaceChildren(...words().keys.flatMap(([keys, what]) => [
    make("dt", "", keys), make("dd", "", what),
  ]));
}

/** @param {import("./strings.js").Language} language */
async function speak(language) {
  await chooseLanguage(language);
  by("language").lang = language === "zh" ? "en" : "zh-CN";
  drawKeys();
  changed();
}

async function openCamera() {
  (await import("./camera.js")).openCamera();
}

function connect() {
  connectIntake({ camera: openCamera });
  by("language").addEventListener("click", () => speak(chosenLanguage() === "zh" ? "en" : "zh"));
  const help = by("help", HTMLDialogElement);
  by("help-open").addEventListener("click", () => help.showModal());
  by("help-close").addEventListener("click", () => help.close());
  by("token").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = by("token-value", HTMLInputElement).value.trim();
    by("token-value", HTMLInputElement).value = "";
    void answers();
  });
}

/** @type {Promise<unknown> | undefined} */
let desk;

/** Loads what photos are worked on with: not needed at first, so that the page starts at once. */
function openDesk() {
  desk ??= import("./desk.js").catch(() => {
    // The server has gone before the page was whole, and browsers do not try again by themselves.
    state.connection = "lost";
    drawServer();
    setInterval(async () => (await answers()) && location.reload(), RETRY_MS);
  });
}

for (const intent of ["pointerdown", "keydown", "dragenter", "paste", "drop"]) {
  document.addEventListener(intent, openDesk, { once: true, capture: true });
}
listen((_photos, everything) => {
  if (everything) drawServer();
  if (state.photos.length) openDesk();
});
connect();
await speak(navigator.language.startsWith("zh") ? "zh" : "en");
await answers();
setTimeout(openDesk, DESK_MS);
