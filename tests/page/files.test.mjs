// The files of the page fit together, and are few bytes.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { readdirSync } from "node:fs";
import { test } from "node:test";

import { en } from "../../web/page/words-en.js";
import { zh } from "../../web/page/words-zh.js";

const folder = new URL("../../web/page/", import.meta.url);
const text = (name) => readFileSync(new URL(name, folder), "utf8");
const html = text("index.html");
const scripts = readdirSync(folder).filter((name) => name.endsWith(".js"));
const all = (source, pattern) => [...source.matchAll(pattern)].map((found) => found[1]);

/** A script and all that it imports before it runs. */
function loadedWith(name, seen = new Set()) {
  if (seen.has(name)) return seen;
  seen.add(name);
  for (const next of all(text(name), /^(?:import|\} from)\b.*?"\.\/([\w-]+\.js)";$/gm)) loadedWith(next, seen);
  return seen;
}

test("both languages have the same words, and none is empty", () => {
  assert.deepEqual(Object.keys(zh), Object.keys(en));
  for (const [key, value] of Object.entries(en)) {
    assert.equal(typeof zh[key], typeof value, key);
    assert.ok(value.length && zh[key].length, key);
  }
  assert.equal(zh.keys.length, en.keys.length);
});

test("every word that the page asks for is there", () => {
  for (const key of all(html, /data-t(?:-label)?="(\w+)"/g)) {
    assert.equal(typeof en[key], "string", key);
  }
  for (const name of scripts) {
    for (const key of all(text(name), /\b(?:words\(\)|t)\.(\w+)/g)) assert.ok(key in en, `${name}: ${key}`);
  }
});

test("no word is left over", () => {
  const sources = html + scripts.filter((name) => !name.startsWith("words-")).map(text).join("");
  for (const key of Object.keys(en)) assert.match(sources, new RegExp(`\\b${key}\\b`), key);
});

test("every element that a script asks for is in the page, once", () => {
  const ids = all(html, / id="([\w-]+)"/g);
  assert.equal(new Set(ids).size, ids.length);
  for (const name of scripts) {
    for (const id of all(text(name), /\bby\("([\w-]+)"/g)) assert.ok(ids.includes(id), `${name}: ${id}`);
  }
});

test("nothing is written as markup, and nothing is inline: the policy forbids it", () => {
  for (const name of scripts) {
    assert.doesNotMatch(text(name), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b/, name);
  }
  assert.doesNotMatch(html, / style=| on\w+=|<style|<script>/);
});

test("nothing is asked from another place", () => {
  for (const name of [...scripts, "index.html", "style.css"]) {
    const addresses = all(text(name), /(https?:\/\/[^\s"')]+)/g);
    assert.deepEqual(addresses.filter((address) => address !== "http://www.w3.org/2000/svg"), [], name);
  }
});

test("what the page starts with is below 100 KB, all of it below 150 KiB", () => {
  const bytes = (names) => names.reduce((sum, name) => sum + statSync(new URL(name, folder)).size, 0);
  const first = ["index.html", "style.css", "icon.svg", ...loadedWith("app.js")];
  assert.ok(first.includes("api.js") && !first.includes("desk.js"), String(first));
  assert.ok(bytes(first) < 100_000, `${bytes(first)} bytes first`);
  assert.ok(bytes(readdirSync(folder)) < 150 * 1024, `${bytes(readdirSync(folder))} bytes in all`);
});
