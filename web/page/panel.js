// @ts-check
// How faces are searched for and covered: the same for all photos.

import { by, show } from "./elements.js";
import {
  mostStrength, PRIVACY_MARGIN, strengthOf, USUAL_MARGIN, withStrength,
} from "./options.js";
import { choose, framesOf, state } from "./state.js";
import { word, words } from "./strings.js";
import { detectAgain } from "./work.js";

const PROFILE_WORDS = /** @type {Record<string, string>} */ ({
  accurate: "profileAccurateHint", fast: "profileFastHint", privacy: "profilePrivacyHint",
});

/** Draws the settings. */
export function drawPanel() {
  const { settings } = state;
  check("methods", settings.method);
  check("shapes", settings.shape);
  check("profiles", settings.profile);
  const most = mostStrength(settings.method);
  by("strength-value").textContent = `${range("strength", strengthOf(settings), most)} / ${most}`;
  show(by("strength-field"), settings.method !== "solid");
  show(by("color-field"), settings.method === "solid");
  show(by("blur-hint"), settings.method === "blur");
  by("color", HTMLInputElement).value = settings.color;
  by("margin-value").textContent = `${range("margin", Math.round(settings.margin * 100))} %`;
  by("threshold-value").textContent = `${range("threshold", Math.round(settings.threshold * 100))} %`;
  by("profile-hint").textContent = word(PROFILE_WORDS[settings.profile]);
  by("audit", HTMLInputElement).checked = settings.audit;
  const isSigned = state.info?.audit_signed;
  by("audit-hint").textContent = `${words().auditHint} ${isSigned ? words().auditSigned : words().auditUnsigned}`;
  drawCount();
}

/** Draws how many faces the threshold leaves. */
export function drawCount() {
  const ready = state.photos.filter((photo) => photo.state === "ready");
  const counts = ready.map((photo) => framesOf(photo).length);
  const here = state.shown ? counts[ready.indexOf(state.shown)] ?? 0 : 0;
  const all = counts.reduce((sum, n) => sum + n, 0);
  by("threshold-count").textContent = words().thresholdCount(here, all);
}

/** @param {string} group @param {string} value */
function check(group, value) {
  for (const input of by(group).querySelectorAll("input")) input.checked = input.value === value;
}

/** @param {string} id @param {number} value @param {number} [most] */
function range(id, value, most) {
  const input = by(id, HTMLInputElement);
  if (most !== undefined) input.max = String(most);
  input.value = String(value);
  input.style.setProperty("--at", `${(100 * (value - +input.min)) / (+input.max - +input.min)}%`);
  return value;
}

/** The threshold that a profile starts with. @param {string} name */
function usualThreshold(name) {
  return state.info?.profiles.find((profile) => profile.name === name)?.threshold ?? 0.7;
}

/** Takes the profile's own threshold once the server has said it. */
export function takeThreshold() {
  if (state.settingsChangedAt === 0) state.settings.threshold = usualThreshold(state.settings.profile);
}

/** @param {string} profile */
function chooseProfile(profile) {
  const usual = profile === "privacy" ? PRIVACY_MARGIN : USUAL_MARGIN;
  const wasUsual = [USUAL_MARGIN, PRIVACY_MARGIN].includes(state.settings.margin);
  const margin = wasUsual ? usual : state.settings.margin;
  choose({ profile, margin, threshold: usualThreshold(profile) });
  detectAgain();
}

/** Connects the controls. */
export function connectPanel() {
  /** @param {string} id @param {(value: string) => void} take @param {string} event */
  const on = (id, take, event = "change") =>
    by(id).addEventListener(event, ({ target }) => take(/** @type {any} */ (target).value));
  on("methods", (method) => choose({ method }));
  on("shapes", (shape) => choose({ shape }));
  on("profiles", chooseProfile);
  on("strength", (value) => choose(withStrength(state.settings, Number(value))), "input");
  on("margin", (value) => choose({ margin: Number(value) / 100 }), "input");
  on("threshold", (value) => choose({ threshold: Number(value) / 100 }), "input");
  on("color", (color) => choose({ color }), "input");
  by("audit").addEventListener("change", () =>
    choose({ audit: by("audit", HTMLInputElement).checked }));
}
