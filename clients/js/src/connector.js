// Keeps one socket open: which URL, when, and which of two sockets counts while one takes over from the other.
// A socket in use (`active`) stays in use until the next one (`candidate`) has said hello; so a move loses no moment.

import { blamesServer, CloseCode, isFinal } from "./codes.js";
import { ImClientError } from "./errors.js";
import { checkUrl, withoutQuery } from "./url.js";

/** @import { ImState, UrlRequest } from "./index.js" */
/** @import { Backoff } from "./backoff.js" */
/** @import { Frame, FrameError, Hello } from "./frames.js" */
/** @import { Link, LinkHooks } from "./link.js" */

/**
 * @typedef {object} ConnectorHooks
 * @property {(hello: Hello, since: string | null, moved: boolean) => void} opened a new socket is the one in use
 * @property {(frame: Exclude<Frame, Hello>) => void} frame of the socket in use
 * @property {(ms: number) => void} lag
 * @property {(error: ImClientError | FrameError) => void} failed something was survived
 * @property {(code: number) => void} lost a socket was closed by the other end, or given up
 * @property {() => void} changed `state` or `retryInMs` is another one
 */

/** @typedef {{code: number | null, reason: string}} Ending */

/** @type {Readonly<Ending>} */
const NOTHING_YET = Object.freeze({ code: null, reason: "" });

export class Connector {
  #getUrl;
  #getUrlTimeoutMs;
  #openLink;
  #backoff;
  #stableMs;
  #hooks;
  #running = false;
  /** @type {Link | null} */
  #active = null;
  /** @type {Link | null} */
  #candidate = null;
  /** @type {AbortController | null} a URL is being asked for */
  #asking = null;
  /** @type {{timer: ReturnType<typeof setTimeout>, at: number, given: string | null} | null} the attempt to come */
  #next = null;
  /** @type {string | null} */
  #avoid = null;

  /** How the last socket, or the client, ended. @type {Readonly<Ending>} */
  ending = NOTHING_YET;

  /**
   * @param {object} options
   * @param {(request: UrlRequest) => unknown} options.getUrl
   * @param {number} options.getUrlTimeoutMs
   * @param {number} options.stableMs a socket that lasted this long was a good one: backoff starts over
   * @param {Backoff} options.backoff
   * @param {(url: string, hooks: LinkHooks) => Link} options.openLink
   * @param {ConnectorHooks} hooks
   */
  constructor({ getUrl, getUrlTimeoutMs, stableMs, backoff, openLink }, hooks) {
    this.#getUrl = getUrl;
    this.#getUrlTimeoutMs = getUrlTimeoutMs;
    this.#stableMs = stableMs;
    this.#backoff = backoff;
    this.#openLink = openLink;
    this.#hooks = hooks;
  }

  /** @returns {ImState} */
  get state() {
    if (!this.#running) {
      return "closed";
    }
    if (this.#active !== null) {
      return this.#busy ? "moving" : "open";
    }
    return this.#next === null ? "connecting" : "waiting";
  }

  /** @returns {number | null} milliseconds until the next attempt, if one is waited for */
  get retryInMs() {
    return this.#next === null ? null : Math.max(0, this.#next.at - performance.now());
  }

  /** @returns {number} attempts that failed since the last good socket */
  get attempt() {
    return this.#backoff.attempt;
  }

  get #busy() {
    return this.#candidate !== null || this.#asking !== null || this.#next !== null;
  }

  /** Begins; does nothing if it is running. */
  start() {
    if (!this.#running) {
      this.#running = true;
      this.ending = NOTHING_YET;
      this.#avoid = null;
      this.#backoff.reset();
      void this.#attempt(null);
    }
  }

  /**
   * Ends sockets, timers and the question for a URL.
   *
   * @param {number} code told by `ending`
   * @param {string} reason
   */
  stop(code, reason) {
    if (!this.#running) {
      return;
    }
    this.#running = false;
    this.ending = { code, reason };
    this.#asking?.abort();
    this.#asking = null;
    clearTimeout(this.#next?.timer);
    this.#next = null;
    this.#candidate?.end();
    this.#candidate = null;
    this.#active?.end();
    this.#active = null;
    this.#hooks.changed();
  }

  /**
   * @param {object} frame
   * @returns {boolean} whether the socket in use took it
   */
  send(frame) {
    return this.#active?.send(frame) ?? false;
  }

  /** The page woke up or the network is back: doubt the socket in use, and do not sit out a long wait. */
  wake() {
    this.#active?.check();
    this.#hasten();
  }

  /** @param {string | null} given a URL to use instead of asking for one */
  async #attempt(given) {
    const asking = new AbortController();
    this.#asking = asking;
    this.#hooks.changed();
    let url;
    try {
      url = given ?? checkUrl(await this.#ask(asking));
    } catch (error) {
      if (this.#asking === asking) {
        this.#asking = null;
        asking.abort();
        this.#hooks.failed(asUrlError(error));
        this.#retry(null);
      }
      return;
    }
    if (this.#asking === asking) {
      this.#asking = null;
      this.#open(url);
    }
  }

  /**
   * @param {AbortController} asking
   * @returns {Promise<unknown>}
   */
  async #ask(asking) {
    const { signal } = asking;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const cut = new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      timer = setTimeout(() => {
        asking.abort(new ImClientError("get-url", `getUrl gave no URL within ${this.#getUrlTimeoutMs} ms`));
      }, this.#getUrlTimeoutMs);
    });
    const request = { attempt: this.attempt, avoid: this.#avoid, lastCode: this.ending.code, signal };
    try {
      return await Promise.race([Promise.resolve(request).then(this.#getUrl), cut]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {string} url */
  #open(url) {
    try {
      this.#candidate = this.#openLink(url, {
        hello: (link, hello) => this.#promote(link, hello),
        frame: (link, frame) => this.#frame(link, frame),
        lag: this.#hooks.lag,
        broken: this.#hooks.failed,
        down: (link, code, reason) => this.#down(link, code, reason),
      });
    } catch (error) {
      // The browser's own words would repeat the URL, and with it the token.
      const name = error instanceof Error ? error.name : typeof error;
      this.#hooks.failed(new ImClientError("url", `no WebSocket could be made for ${withoutQuery(url)} (${name})`));
      this.#retry(null);
    }
  }

  /**
   * @param {Link} link
   * @param {Hello} hello
   */
  #promote(link, hello) {
    const old = this.#active;
    this.#active = link;
    this.#candidate = null;
    this.#avoid = null;
    old?.end(CloseCode.NORMAL, "moved");
    this.#hooks.opened(hello, link.since, old !== null);
    this.#hooks.changed();
  }

  /**
   * @param {Link} link
   * @param {Exclude<Frame, Hello>} frame
   */
  #frame(link, frame) {
    this.#hooks.frame(frame);
    if (frame.t === "move" && link === this.#active && !this.#busy) {
      this.#move(link, frame.url);
    }
  }

  /**
   * @param {Link} link
   * @param {string} given
   */
  #move(link, given) {
    const settled = this.#settled(link);
    let url;
    try {
      url = checkUrl(given, link.url);
    } catch (error) {
      this.#hooks.failed(asUrlError(error));
      this.#retry(CloseCode.GOING_AWAY);
      return;
    }
    if (settled) {
      void this.#attempt(url);
    } else {
      // Servers that hand a client on and on must not make it spin.
      this.#retry(CloseCode.GOING_AWAY, url);
    }
  }

  /**
   * @param {Link} link
   * @param {number} code
   * @param {string} reason
   */
  #down(link, code, reason) {
    const wasActive = link === this.#active;
    if (wasActive) {
      this.#active = null;
      this.#settled(link);
    } else {
      this.#candidate = null;
    }
    this.#hooks.lost(code);
    // The socket too many may be the old one, closed because the one that takes over from it has arrived.
    const replaced = wasActive && this.#busy && code === CloseCode.TOO_MANY_SOCKETS;
    if (isFinal(code) && !replaced) {
      this.stop(code, reason);
      return;
    }
    this.ending = { code, reason };
    const ownNetworkIsDown = globalThis.navigator?.onLine === false;
    this.#avoid = blamesServer(code) && !ownNetworkIsDown ? withoutQuery(link.url) : null;
    if (this.#busy) {
      this.#hasten();
      this.#hooks.changed();
    } else {
      this.#retry(code);
    }
  }

  /**
   * @param {Link} link
   * @returns {boolean} whether the socket lasted; if so, backoff starts over
   */
  #settled(link) {
    const lasted = link.openedAt !== null && performance.now() - link.openedAt >= this.#stableMs;
    if (lasted) {
      this.#backoff.reset();
    }
    return lasted;
  }

  /**
   * @param {number | null} code what made it necessary
   * @param {string | null} [given] a URL to use instead of asking for one
   */
  #retry(code, given = null) {
    if (this.#running) {
      this.#schedule(this.#backoff.next(code), given);
      this.#hooks.changed();
    }
  }

  #hasten() {
    const next = this.#next;
    if (next !== null) {
      clearTimeout(next.timer);
      this.#schedule(Math.min(next.at - performance.now(), this.#backoff.quick()), next.given);
    }
  }

  /**
   * @param {number} delayMs
   * @param {string | null} given
   */
  #schedule(delayMs, given) {
    const timer = setTimeout(() => {
      this.#next = null;
      void this.#attempt(given);
    }, delayMs);
    this.#next = { timer, at: performance.now() + delayMs, given };
  }
}

/**
 * @param {unknown} error
 * @returns {ImClientError}
 */
function asUrlError(error) {
  return error instanceof ImClientError ? error : new ImClientError("get-url", "getUrl failed", { cause: error });
}
