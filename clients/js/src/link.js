// One WebSocket from its constructor to its end: hello first and in time, then frames, pings and a single `down`.
// A Link decides nothing about what comes next; after `end` or `down` it never calls back again.

import { CloseCode } from "./codes.js";
import { FrameError, parseFrame, SUBPROTOCOL } from "./frames.js";
import { Liveness } from "./liveness.js";

/** So many broken frames and the server is not one to listen to. */
const BROKEN_FRAMES_LIMIT = 16;
const OPEN = 1;

/** @import { WebSocketConstructor, WebSocketLike } from "./index.js" */
/** @import { Frame, Hello } from "./frames.js" */

/**
 * @typedef {object} LinkHooks
 * @property {(link: Link, hello: Hello) => void} hello once, before any frame
 * @property {(link: Link, frame: Exclude<Frame, Hello>) => void} frame
 * @property {(ms: number) => void} lag a round trip was measured
 * @property {(error: FrameError) => void} broken a frame after the hello could not be read and was skipped
 * @property {(link: Link, code: number, reason: string) => void} down the socket is gone; a loss seen on this side is 1006
 */

export class Link {
  #socket;
  #hooks;
  #pongTimeoutMs;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #handshakeTimer;
  /** @type {Liveness | null} */
  #liveness = null;
  #broken = 0;
  #lastError = "";
  #released = false;

  /** The URL it was opened with, without `since`. @type {string} */
  url;
  /** The position it asked to resume from. @type {string | null} */
  since;
  /** When the hello came, on the monotonic clock. @type {number | null} */
  openedAt = null;

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.address the URL with `since`
   * @param {string | null} options.since
   * @param {WebSocketConstructor} options.WebSocket
   * @param {number} options.handshakeTimeoutMs from here to the hello
   * @param {number} options.pongTimeoutMs from a ping to any frame
   * @param {LinkHooks} hooks
   * @throws whatever the WebSocket constructor throws
   */
  constructor({ url, address, since, WebSocket, handshakeTimeoutMs, pongTimeoutMs }, hooks) {
    this.url = url;
    this.since = since;
    this.#hooks = hooks;
    this.#pongTimeoutMs = pongTimeoutMs;
    /** @type {WebSocketLike} */
    const socket = new WebSocket(address, SUBPROTOCOL);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#down(event.code, event.reason || this.#lastError);
    socket.onerror = (event) => {
      this.#lastError = event?.message ?? "";
    };
    this.#handshakeTimer = setTimeout(() => {
      this.#fail(CloseCode.NORMAL, `no hello within ${handshakeTimeoutMs} ms`);
    }, handshakeTimeoutMs);
  }

  /**
   * @param {object} frame
   * @returns {boolean} whether the socket took it
   */
  send(frame) {
    if (this.#socket.readyState !== OPEN) {
      return false;
    }
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** Asks whether the other end is still there. */
  check() {
    this.#liveness?.check();
  }

  /**
   * Lets go of the socket: no hook is called any more.
   *
   * @param {number} [code] 1000 or 3000–4999, which is what browsers may send
   * @param {string} [reason] at most 123 bytes
   */
  end(code = CloseCode.NORMAL, reason = "") {
    this.#release();
    this.#socket.close(code, reason);
  }

  /** @param {unknown} raw */
  #receive(raw) {
    this.#liveness?.heard();
    let frame;
    try {
      frame = parseFrame(raw);
    } catch (error) {
      if (!(error instanceof FrameError)) {
        throw error;
      }
      this.#skip(error);
      return;
    }
    if (this.openedAt === null) {
      this.#open(frame);
    } else if (frame?.t === "hello") {
      this.#skip(new FrameError("a second hello frame"));
    } else if (frame !== null) {
      if (frame.t === "pong") {
        this.#liveness?.pong();
      }
      this.#hooks.frame(this, frame);
    }
  }

  /** @param {Frame | null} frame */
  #open(frame) {
    if (frame?.t !== "hello") {
      this.#fail(CloseCode.BAD_FRAME, "the first frame was no hello");
      return;
    }
    clearTimeout(this.#handshakeTimer);
    this.openedAt = performance.now();
    this.#liveness = new Liveness({
      periodMs: frame.pingMs,
      timeoutMs: this.#pongTimeoutMs,
      ping: () => this.send({ t: "ping" }),
      dead: () => this.#fail(CloseCode.PING_TIMEOUT, "no answer to a ping"),
      lag: this.#hooks.lag,
    });
    this.#hooks.hello(this, frame);
  }

  /** @param {FrameError} error */
  #skip(error) {
    if (this.openedAt === null) {
      this.#fail(CloseCode.BAD_FRAME, `instead of a hello: ${error.message}`);
      return;
    }
    this.#broken += 1;
    this.#hooks.broken(error);
    if (this.#broken >= BROKEN_FRAMES_LIMIT && !this.#released) {
      this.#fail(CloseCode.BAD_FRAME, `${BROKEN_FRAMES_LIMIT} broken frames`);
    }
  }

  /**
   * @param {number} code what the other end is told, if it still listens
   * @param {string} reason
   */
  #fail(code, reason) {
    this.end(code, reason);
    this.#hooks.down(this, CloseCode.ABNORMAL, reason);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #down(code, reason) {
    this.#release();
    this.#hooks.down(this, code, reason);
  }

  #release() {
    this.#released = true;
    clearTimeout(this.#handshakeTimer);
    this.#liveness?.stop();
    const socket = this.#socket;
    socket.onmessage = null;
    socket.onclose = null;
    // Not null: sockets of Node's ws throw an error nobody listens to, and closing one that still connects makes one.
    socket.onerror = () => undefined;
  }
}
