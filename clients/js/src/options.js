// Checks what an app hands to ImClient and fills in the defaults: a bad option stops the constructor, in one sentence.
// Numbers are milliseconds unless their name says otherwise.

/** @import { ImOptions, WebSocketConstructor } from "./index.js" */

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} fallback
 * @param {number} least
 * @returns {number}
 */
function number(name, value, fallback, least) {
  if (value === undefined) {
    return fallback;
  }
  // setTimeout takes a signed 32-bit number, and fires at once past it.
  if (typeof value !== "number" || !(value >= least) || value > 0x7fffffff) {
    throw new RangeError(`option ${name} must be a number from ${least} to ${0x7fffffff}, not ${String(value)}`);
  }
  return value;
}

/**
 * @param {string} name
 * @param {unknown} value
 */
function mustBeFunction(name, value) {
  if (typeof value !== "function") {
    throw new TypeError(`option ${name} must be a function`);
  }
}

/**
 * @param {ImOptions} options
 * @throws {TypeError | RangeError} which name the option and what is allowed
 */
export function readOptions(options) {
  mustBeFunction("getUrl", options?.getUrl);
  const WebSocket = /** @type {WebSocketConstructor} */ (options.WebSocket ?? globalThis.WebSocket);
  mustBeFunction("WebSocket (needed where the platform has none)", WebSocket);
  const ack = options.ack ?? "auto";
  if (ack !== "auto" && ack !== "manual") {
    throw new TypeError('option ack must be "auto" or "manual"');
  }
  const storage = options.storage ?? null;
  if (storage !== null) {
    mustBeFunction("storage.load", storage.load);
    mustBeFunction("storage.save", storage.save);
  }
  const backoff = options.backoff ?? {};
  const random = backoff.random ?? Math.random;
  mustBeFunction("backoff.random", random);
  return {
    getUrl: options.getUrl,
    WebSocket,
    manual: ack === "manual",
    storage,
    ackDelayMs: number("ackDelayMs", options.ackDelayMs, 50, 0),
    getUrlTimeoutMs: number("getUrlTimeoutMs", options.getUrlTimeoutMs, 10_000, 1),
    handshakeTimeoutMs: number("handshakeTimeoutMs", options.handshakeTimeoutMs, 10_000, 1),
    pongTimeoutMs: number("pongTimeoutMs", options.pongTimeoutMs, 10_000, 1),
    dedupeSize: number("dedupeSize", options.dedupeSize, 10_000, 1),
    baseMs: number("backoff.baseMs", backoff.baseMs, 500, 1),
    maxMs: number("backoff.maxMs", backoff.maxMs, 30_000, 1),
    stableMs: number("backoff.stableMs", backoff.stableMs, 10_000, 0),
    random,
  };
}
