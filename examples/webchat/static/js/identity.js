// Who this tab is: an id of its own, kept over reloads; a duplicated tab notices and takes a new one.
// sessionStorage is copied into a duplicated tab, so the id is asked for on a BroadcastChannel before it is used.

const ID = "webchat.id";
const NAME = "webchat.name";
const ASK_MS = 150;

/** Everything this page keeps begins so; a new identity starts without it. */
const OWN_PREFIX = "webchat.";

/**
 * Settles this tab's id, and answers duplicates from then on.
 *
 * @returns {Promise<string>}
 */
export async function settleId() {
  const tabs = new BroadcastChannel("webchat.ids");
  let id = sessionStorage.getItem(ID);
  if (id !== null && (await isTaken(tabs, id))) {
    forget();
    id = null;
  }
  if (id === null) {
    id = newId();
    sessionStorage.setItem(ID, id);
  }
  tabs.onmessage = ({ data }) => {
    if (data.ask === id) {
      tabs.postMessage({ taken: id });
    }
  };
  return id;
}

/** @returns {string} the display name, possibly empty; tabs opened later begin with the name chosen last */
export function loadName() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** @param {string} name */
export function saveName(name) {
  sessionStorage.setItem(NAME, name);
}

/**
 * What a person without a name is called.
 *
 * @param {string} id
 */
export function guestName(id) {
  return `Guest ${id.slice(0, 4)}`;
}

function forget() {
  for (const key of Object.keys(sessionStorage)) {
    if (key.startsWith(OWN_PREFIX)) {
      sessionStorage.removeItem(key);
    }
  }
}

/**
 * @param {BroadcastChannel} tabs
 * @param {string} id
 * @returns {Promise<boolean>}
 */
function isTaken(tabs, id) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ASK_MS);
    tabs.onmessage = ({ data }) => {
      if (data.taken === id) {
        clearTimeout(timer);
        resolve(true);
      }
    };
    tabs.postMessage({ ask: id });
  });
}

/** A GUID as ImCore's; crypto.randomUUID is missing on pages opened over plain http from another machine. */
function newId() {
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  hex[6] = `4${hex[6][1]}`;
  hex[8] = (8 + (parseInt(hex[8][0], 16) % 4)).toString(16) + hex[8][1];
  const text = hex.join("");
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
}

/** @returns {string} a key that names one thing this tab sends, so that sending it again does not double it */
export function newKey() {
  return newId();
}
