// URLs of servers: checked before use, given a `since`, stripped of their token before anyone else sees them.
// A token travels in the query, so no error made here repeats more than scheme, host and path.

import { ImClientError } from "./errors.js";

/**
 * Checks a URL that the app's backend or a server gave.
 *
 * @param {unknown} url
 * @param {string | null} previous the URL of the open socket; one that was encrypted is never followed into the clear
 * @returns {string} the URL, without fragment (a WebSocket may have none)
 * @throws {ImClientError} kind "url"
 */
export function checkUrl(url, previous = null) {
  if (typeof url !== "string") {
    throw new ImClientError("url", `a server's URL must be a string, not ${url === null ? "null" : typeof url}`);
  }
  let parsed;
  try {
    parsed = new URL(url);
  } catch {
    throw new ImClientError("url", "a server's URL could not be read");
  }
  if (parsed.protocol !== "ws:" && parsed.protocol !== "wss:") {
    throw new ImClientError("url", `a server's URL must begin with ws:// or wss://, not ${parsed.protocol}`);
  }
  if (parsed.protocol === "ws:" && previous !== null && previous.startsWith("wss:")) {
    throw new ImClientError("url", "a server asked to move from wss:// to ws://, which would show the token");
  }
  parsed.hash = "";
  return parsed.href;
}

/**
 * @param {string} url a URL that `checkUrl` gave
 * @param {string | null} since the position to resume from
 * @returns {string}
 */
export function withSince(url, since) {
  if (since === null) {
    return url;
  }
  return `${url}${url.includes("?") ? "&" : "?"}since=${encodeURIComponent(since)}`;
}

/**
 * @param {string} url
 * @returns {string} scheme, host and path: enough to name a server, nothing to log in with
 */
export function withoutQuery(url) {
  return url.split("?", 1)[0] ?? url;
}
