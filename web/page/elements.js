// @ts-check
// Elements of index.html by their id, with the type that they have there.

/**
 * @template {HTMLElement} T
 * @param {string} id @param {{new (): T}} type @returns {T}
 */
export function by(id, type = /** @type {any} */ (HTMLElement)) {
  const found = document.getElementById(id);
  // The SVG of the frames is asked for, too: it has what its callers use.
  if (!found) throw new Error(`the page has no ${id}`);
  return /** @type {T} */ (found);
}

/** @param {Element} element @param {boolean} visible */
export function show(element, visible) {
  element.toggleAttribute("hidden", !visible);
}

/** @param {string} name @param {string} className @param {string} text */
export function make(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
