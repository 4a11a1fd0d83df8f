// @ts-check
// The words of the page in the language that is chosen.

import { en } from "./words-en.js";

/** @typedef {"en" | "zh"} Language */

/** @type {Language} */
let language = "en";
let table = en;

/** The words of the language that is chosen. */
export function words() {
  return table;
}

/** A word by its key, for those that take no values. @param {string} key */
export function word(key) {
  return String(/** @type {Record<string, unknown>} */ (table)[key] ?? key);
}

/** @returns {Language} */
export function chosenLanguage() {
  return language;
}

/** Chooses a language and writes its words into the page. @param {Language} chosen */
export async function chooseLanguage(chosen) {
  table = chosen === "zh" ? (await import("./words-zh.js")).zh : en;
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = word(element.getAttribute("data-t") ?? "");
  }
  for (const element of document.querySelectorAll("[data-t-label]")) {
    const text = word(element.getAttribute("data-t-label") ?? "");
    element.setAttribute("aria-label", text);
    if (element.tagName === "BUTTON") element.setAttribute("title", text);
  }
}
