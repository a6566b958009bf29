// Builds elements from text, never from markup: whatever a user typed stays text.
// There is no innerHTML in this page; `h` is the only way in which elements are made.

/**
 * Makes an element.
 *
 * @param {string} tag
 * @param {Record<string, string | number | boolean | EventListener | null>} attributes `class`, `data-…`, `aria-…` and
 *   the like; `onclick` and the like take functions; null and false leave an attribute out
 * @param {...(Node | string | null)} children strings become text nodes
 * @returns {HTMLElement}
 */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * @param {string} id
 * @returns {any} the element of the page with this id
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A coloured circle (or square, for rooms) with one or two letters; the colour follows the key.
 *
 * @param {HTMLElement} element
 * @param {string} key
 * @param {string} title
 * @param {boolean} room
 */
export function paintAvatar(element, key, title, room) {
  let hash = 0;
  for (const char of key) {
    hash = (hash * 31 + char.codePointAt(0)) % 360;
  }
  element.style.setProperty("--hue", String(hash));
  element.classList.toggle("room", room);
  element.textContent = room ? "#" : initials(title);
}

/** @param {string} title */
function initials(title) {
  const words = title.split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return letters.map((word) => [...word][0].toUpperCase()).join("") || "?";
}

/** @param {number} bytes */
export function sizeText(bytes) {
  if (bytes < 1024) {
    return `${bytes} B`;
  }
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** @param {number} at milliseconds since 1970 */
export function timeText(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
