// ImClient, what an app uses: it puts connector, inbox and page events together and tells the app what happens.
// Everything that decides lives in the modules it puts together.

import { Backoff } from "./backoff.js";
import { CloseCode } from "./codes.js";
import { Connector } from "./connector.js";
import { Emitter } from "./emitter.js";
import { ImClientError } from "./errors.js";
import { Inbox } from "./inbox.js";
import { Link } from "./link.js";
import { readOptions } from "./options.js";
import { PositionStore } from "./storage.js";
import { withSince } from "./url.js";
import { watchPage } from "./wake.js";

/** @import { ImEvents, ImOptions, ImState } from "./index.js" */
/** @import { Hello } from "./frames.js" */

/** See index.d.ts, which documents what is public. */
export class ImClient {
  /** @type {Emitter<ImEvents>} */
  #emitter = new Emitter((error, type) => this.#listenerFailed(error, type));
  #inbox;
  #connector;
  /** @type {(() => void) | null} */
  #unwatch = null;
  /** @type {string | null} */
  #server = null;
  /** @type {number | null} */
  #lag = null;
  /** @type {string} */
  #told = "closed";
  #closedForGap = false;

  /** @param {ImOptions} options */
  constructor(options) {
    const { WebSocket, storage, manual, ackDelayMs, dedupeSize, handshakeTimeoutMs, pongTimeoutMs, ...rest } =
      readOptions(options);
    this.#inbox = new Inbox({
      emitter: this.#emitter,
      manual,
      ackDelayMs,
      dedupeSize,
      send: (frame) => this.#connector.send(frame),
      store: storage && new PositionStore(storage, (error) => this.#failed(error)),
    });
    this.#connector = new Connector(
      {
        ...rest,
        backoff: new Backoff(rest),
        openLink: (url, hooks) => {
          const since = this.#inbox.since();
          const address = withSince(url, since);
          return new Link({ url, address, since, WebSocket, handshakeTimeoutMs, pongTimeoutMs }, hooks);
        },
      },
      {
        opened: (hello, since, moved) => this.#opened(hello, since, moved),
        frame: (frame) => this.#inbox.take(frame),
        lag: (ms) => {
          this.#lag = ms;
          this.#emitter.emit("lag", { ms });
        },
        failed: (error) => this.#failed(error),
        lost: (code) => {
          this.#closedForGap ||= code === CloseCode.GAP;
        },
        changed: () => this.#changed(),
      },
    );
  }

  /** @returns {ImState} */
  get state() {
    return this.#connector.state;
  }

  /** @returns {string | null} */
  get position() {
    return this.#inbox.position;
  }

  /** @returns {string | null} */
  get clientId() {
    return this.#inbox.client;
  }

  /** @returns {string | null} */
  get server() {
    return this.#server;
  }

  /** @returns {number | null} */
  get lag() {
    return this.#lag;
  }

  connect() {
    if (this.state !== "closed") {
      return;
    }
    this.#inbox.start();
    this.#unwatch = watchPage(globalThis, {
      wake: () => this.#connector.wake(),
      hide: () => this.#inbox.flush(),
    });
    this.#connector.start();
  }

  close() {
    this.#inbox.stop();
    this.#connector.stop(CloseCode.NORMAL, "closed by the app");
  }

  /**
   * @template {keyof ImEvents} Type
   * @param {Type} type
   * @param {(event: ImEvents[Type]) => unknown} listener
   * @returns {() => void}
   */
  on(type, listener) {
    return this.#emitter.on(type, listener);
  }

  /**
   * @template {keyof ImEvents} Type
   * @param {Type} type
   * @param {(event: ImEvents[Type]) => unknown} listener
   */
  off(type, listener) {
    this.#emitter.off(type, listener);
  }

  /**
   * @param {Hello} hello
   * @param {string | null} since
   * @param {boolean} moved
   */
  #opened(hello, since, moved) {
    this.#server = hello.server;
    const joined = this.#inbox.hello(hello, since);
    const closedForGap = this.#closedForGap;
    this.#closedForGap = false;
    const { client, server } = hello;
    this.#emitter.emit("open", { client, server, recovered: joined === "recovered", moved });
    if (joined === "missed" || joined === "client-changed") {
      this.#emitter.emit("gap", { reason: joined });
    } else if (closedForGap) {
      this.#emitter.emit("gap", { reason: "closed-for-gap" });
    }
  }

  #changed() {
    const { state, retryInMs, attempt, ending } = this.#connector;
    if (state === "closed") {
      this.#inbox.stop();
      this.#unwatch?.();
      this.#unwatch = null;
      this.#server = null;
    }
    if (state !== this.#told) {
      this.#told = state;
      const { code, reason } = ending;
      this.#emitter.emit("state", { state, code, reason, attempt, retryInMs: state === "waiting" ? retryInMs : null });
    }
  }

  /** @param {Error} error */
  #failed(error) {
    this.#emitter.emit(
      "error",
      error instanceof ImClientError ? error : new ImClientError("frame", error.message, { cause: error }),
    );
  }

  /**
   * @param {unknown} cause
   * @param {string} type
   */
  #listenerFailed(cause, type) {
    if (type === "error" || !this.#emitter.has("error")) {
      // Nobody else is left to be told of a fault in the app's own code.
      console.error(`imcluster-client: a listener of "${type}" failed`, cause);
      return;
    }
    this.#failed(new ImClientError("listener", `a listener of "${type}" failed`, { cause }));
  }
}
