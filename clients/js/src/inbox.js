// What arrived and what became of it: position, de-duplication, delivery to listeners, acks, the persisted position.
// It knows no sockets: `send` either takes an ack or does not, and one that is due waits for the next hello.

import { RecentKeys } from "./dedupe.js";
import { Ledger } from "./ledger.js";

/** Unfinished handlers that are booked apart; see Ledger. */
const LEDGER_ENTRIES = 1_024;

/**
 * A socket resumes before what is still being handled, but not for longer than this: the servers keep a minute by
 * default, and the position before a message may be a ping old already.
 */
const UNFINISHED_MS = 30_000;

/** @import { ImEvents } from "./index.js" */
/** @import { Emitter } from "./emitter.js" */
/** @import { Frame, Hello, Msg, Receipt } from "./frames.js" */
/** @import { PositionStore } from "./storage.js" */

export class Inbox {
  #emitter;
  #manual;
  #ackDelayMs;
  #dedupeSize;
  #send;
  #store;
  #messages;
  #receipts;
  #ledger = new Ledger(LEDGER_ENTRIES);
  /** @type {ReturnType<typeof setTimeout> | null} */
  #timer = null;
  #running = false;
  /** The last message or receipt, as long as a socket may have to replay it. @type {string | null} */
  #tail = null;
  /** Whether the socket still replays what was taken before. */
  #behind = false;

  /** The position of the last frame that was taken. @type {string | null} */
  position = null;
  /** Whose messages these are. @type {string | null} */
  client = null;

  /**
   * @param {object} options
   * @param {Emitter<ImEvents>} options.emitter
   * @param {boolean} options.manual whether the app acks by itself
   * @param {number} options.ackDelayMs how long acks are gathered
   * @param {number} options.dedupeSize ids of messages (and of receipts) that are remembered
   * @param {(frame: object) => boolean} options.send
   * @param {PositionStore | null} options.store
   */
  constructor({ emitter, manual, ackDelayMs, dedupeSize, send, store }) {
    this.#emitter = emitter;
    this.#manual = manual;
    this.#ackDelayMs = ackDelayMs;
    this.#dedupeSize = dedupeSize;
    this.#send = send;
    this.#store = store;
    this.#messages = new RecentKeys(dedupeSize);
    this.#receipts = new RecentKeys(dedupeSize);
  }

  /** Begins to take frames, from the stored position if this page has none of its own. */
  start() {
    this.#running = true;
    if (this.position === null) {
      const stored = this.#store?.load() ?? null;
      if (stored !== null) {
        this.client = stored.client;
        this.position = stored.pos;
        this.#ledger.rebase(stored.pos);
      }
    }
  }

  /** Sends the ack that is due, stores the position, and sets no timer any more. */
  stop() {
    this.flush();
    this.#running = false;
  }

  /**
   * Where a new socket resumes. The servers take it for an ack, so it is before whatever is still being handled: that
   * comes again and is dropped by its id. If there are more of these than ids are remembered, or handlers are at work
   * for so long that the servers may have dropped what came after, a loss or a message twice would be worse than an
   * early ack.
   *
   * @returns {string | null}
   */
  since() {
    const { oldest, waiting, resume } = this.#ledger;
    const early = oldest !== null && Date.now() - oldest <= UNFINISHED_MS && waiting < this.#dedupeSize;
    return early ? resume : this.position;
  }

  /**
   * A new socket took over.
   *
   * @param {Hello} hello
   * @param {string | null} since what that socket asked for
   * @returns {"fresh" | "recovered" | "missed" | "client-changed"} how its frames join what was taken before
   */
  hello(hello, since) {
    const sameClient = this.client === null || this.client === hello.client;
    const recovered = hello.recovered && since !== null && sameClient;
    if (!sameClient) {
      this.#messages.clear();
      this.#receipts.clear();
    }
    this.client = hello.client;
    this.#behind = recovered && since !== this.position && this.#tail !== null;
    if (recovered) {
      this.#ledger.repeat();
    } else {
      this.#tail = null;
      this.position = hello.pos;
      this.#ledger.rebase(hello.pos);
    }
    this.#arm();
    if (!sameClient) {
      return "client-changed";
    }
    if (since === null) {
      return "fresh";
    }
    return recovered ? "recovered" : "missed";
  }

  /** @param {Exclude<Frame, Hello>} frame */
  take(frame) {
    switch (frame.t) {
      case "msg":
        this.#message(frame);
        break;
      case "receipt":
        this.#receipt(frame);
        break;
      default:
        this.#passed(frame.pos);
    }
  }

  /** Does at once what the timer would do. */
  flush() {
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
      this.#timer = null;
    }
    if (!this.#running) {
      return;
    }
    if (this.#ledger.due && this.#send({ t: "ack", pos: this.#ledger.safe })) {
      this.#ledger.sent();
    }
    if (this.client !== null && this.#ledger.safe !== null) {
      this.#store?.save(this.client, this.#ledger.safe);
    }
  }

  /**
   * A duplicate moves nothing: a socket that replays is behind what another one gave already.
   *
   * @param {Msg} frame
   */
  #message(frame) {
    if (!this.#messages.add(frame.id)) {
      this.#repeated(frame.pos);
      return;
    }
    const { id, from, chan, data, pos } = frame;
    const finish = this.#book(pos, true);
    const message = { id, from, chan, data, pos, ack: this.#manual ? finish : () => undefined };
    const pending = this.#emitter.emit("message", message);
    if (!this.#manual) {
      this.#after(pending, finish);
    }
  }

  /** @param {Receipt} frame */
  #receipt(frame) {
    const { id, to, status, pos } = frame;
    if (this.#receipts.add(JSON.stringify([id, to]))) {
      const finish = this.#book(pos, false);
      this.#after(this.#emitter.emit("receipt", { id, to, status, pos }), finish);
    } else {
      this.#repeated(pos);
    }
  }

  /** @param {string} pos */
  #repeated(pos) {
    if (pos === this.#tail) {
      this.#behind = false;
    }
  }

  /**
   * A position that needs no handler. While a socket replays, its positions are behind what was taken; by the second
   * pong it has long finished.
   *
   * @param {string} pos
   */
  #passed(pos) {
    if (this.#behind) {
      this.#behind = false;
      return;
    }
    this.position = pos;
    this.#ledger.passed(pos);
    if (this.#ledger.waiting === 0) {
      this.#tail = null;
    }
    this.#arm();
  }

  /**
   * @param {string} pos
   * @param {boolean} message
   * @returns {() => void} says that its handlers have finished
   */
  #book(pos, message) {
    this.position = this.#tail = pos;
    this.#behind = false;
    const settle = this.#ledger.open(pos, message);
    return () => {
      settle();
      this.#arm();
    };
  }

  /**
   * @param {Promise<void> | null} pending
   * @param {() => void} finish
   */
  #after(pending, finish) {
    if (pending === null) {
      finish();
    } else {
      void pending.then(finish);
    }
  }

  #arm() {
    if (this.#running && this.#timer === null) {
      this.#timer = setTimeout(() => this.flush(), this.#ackDelayMs);
    }
  }
}
