// Reads the server's frames (subprotocol imcluster.v1.json): text in, a checked and typed object out.
// A frame of a type unknown here is skipped, so that newer servers may say more; a broken one is an error.

export const SUBPROTOCOL = "imcluster.v1.json";

const DEFAULT_PING_MS = 25_000;
const SHORTEST_PING_MS = 1_000;
const LONGEST_PING_MS = 3_600_000;
/** Positions go back to the server in URLs and in acks, and it closes sockets that send frames over 4 KiB. */
const LONGEST_POS = 512;

/**
 * @typedef {{t: "hello", client: string, server: string, pos: string, recovered: boolean, pingMs: number}} Hello
 * @typedef {{t: "msg", id: string, pos: string, from: string, chan: string | null, data: unknown}} Msg
 * @typedef {{t: "receipt", id: string, to: string, status: "delivered" | "offline", pos: string}} Receipt
 * @typedef {{t: "move", url: string, pos: string}} Move
 * @typedef {{t: "pong", pos: string}} Pong
 * @typedef {Hello | Msg | Receipt | Move | Pong} Frame
 */

/** A frame that does not follow the protocol. */
export class FrameError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "FrameError";
  }
}

/**
 * @param {Record<string, unknown>} frame
 * @param {string} name
 * @returns {string}
 */
function text(frame, name) {
  const value = frame[name];
  if (typeof value !== "string") {
    throw new FrameError(`"${name}" of a ${frame.t} frame must be a string`);
  }
  return value;
}

/**
 * @param {Record<string, unknown>} frame
 * @returns {string}
 */
function position(frame) {
  const pos = text(frame, "pos");
  if (pos === "" || pos.length > LONGEST_POS) {
    throw new FrameError(`"pos" of a ${frame.t} frame must have 1 to ${LONGEST_POS} characters`);
  }
  return pos;
}

/**
 * @param {unknown} seconds
 * @returns {number} milliseconds between two pings
 */
function pingPeriod(seconds) {
  if (typeof seconds !== "number" || !(seconds > 0)) {
    return DEFAULT_PING_MS;
  }
  return Math.min(Math.max(seconds * 1000, SHORTEST_PING_MS), LONGEST_PING_MS);
}

/**
 * @param {Record<string, unknown>} frame
 * @returns {unknown} what the business sent; bytes as a Uint8Array
 */
function payload(frame) {
  if (!("data" in frame)) {
    throw new FrameError('a msg frame must have "data"');
  }
  if (frame.b64 !== true) {
    return frame.data;
  }
  let binary;
  try {
    binary = atob(text(frame, "data"));
  } catch {
    throw new FrameError('"data" of a msg frame is not base64');
  }
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/**
 * @param {Record<string, unknown>} frame
 * @returns {"delivered" | "offline"}
 */
function receiptStatus(frame) {
  if (frame.status !== "delivered" && frame.status !== "offline") {
    throw new FrameError('"status" of a receipt frame must be "delivered" or "offline"');
  }
  return frame.status;
}

/**
 * Reads one frame.
 *
 * @param {unknown} raw what the WebSocket's message event carried
 * @returns {Frame | null} null for a type that this version does not know
 * @throws {FrameError}
 */
export function parseFrame(raw) {
  if (typeof raw !== "string") {
    throw new FrameError("a frame must be text");
  }
  let frame;
  try {
    frame = JSON.parse(raw);
  } catch {
    throw new FrameError("a frame must be JSON");
  }
  if (typeof frame !== "object" || frame === null || typeof frame.t !== "string") {
    throw new FrameError('a frame must be an object with a string "t"');
  }
  switch (frame.t) {
    case "hello":
      return {
        t: "hello",
        client: text(frame, "client"),
        server: text(frame, "server"),
        pos: position(frame),
        recovered: frame.recovered === true,
        pingMs: pingPeriod(frame.ping),
      };
    case "msg":
      return {
        t: "msg",
        id: text(frame, "id"),
        pos: position(frame),
        from: text(frame, "from"),
        chan: frame.chan === undefined || frame.chan === null ? null : text(frame, "chan"),
        data: payload(frame),
      };
    case "receipt":
      return {
        t: "receipt",
        id: text(frame, "id"),
        to: text(frame, "to"),
        status: receiptStatus(frame),
        pos: position(frame),
      };
    case "move":
      return { t: "move", url: text(frame, "url"), pos: position(frame) };
    case "pong":
      return { t: "pong", pos: position(frame) };
    default:
      return null;
  }
}
