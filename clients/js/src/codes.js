// Close codes: which of them end the client for good, which blame the server, and how fast to come back after each.
// The numbers and the two ranges are the protocol's (4000–4499: reconnect, 4500–4999: do not).

/** Close codes that this package sends, or treats in a way of their own. */
export const CloseCode = Object.freeze({
  NORMAL: 1000,
  PROTOCOL_ERROR: 1002,
  ABNORMAL: 1006,
  GOING_AWAY: 1012,
  OVERLOADED: 1013,
  PING_TIMEOUT: 4000,
  SLOW_CONSUMER: 4001,
  GAP: 4002,
  DISCONNECTED: 4500,
  BAD_FRAME: 4501,
  TOO_MANY_SOCKETS: 4502,
});

/**
 * Whether a client closed with this code must stay away.
 *
 * @param {number} code
 * @returns {boolean}
 */
export function isFinal(code) {
  return code >= 4500 && code <= 4999;
}

/**
 * Whether the next URL should be one of another server.
 * A code in 4000–4499 concerns this client's socket only: its server is well, and leaving it would cost the slot's locality.
 *
 * @param {number} code
 * @returns {boolean}
 */
export function blamesServer(code) {
  return code !== CloseCode.NORMAL && code < 4000;
}

/**
 * How many doublings of the base delay the first retry after this code starts with.
 * A server that leaves or refreshes has made room for a quick return; an overloaded one needs its clients spread out.
 *
 * @param {number | null} code null where no socket was ever closed (the app's own getUrl failed)
 * @returns {number}
 */
export function startExponent(code) {
  if (code === CloseCode.OVERLOADED) {
    return 4;
  }
  return code === CloseCode.GOING_AWAY || (code !== null && code >= 4000 && code <= 4499) ? 0 : 1;
}
