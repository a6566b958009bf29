// Which positions are safe to acknowledge: the latest one before which every message's handler has finished.
// Handlers finish in any order; an ack covers a prefix. This is the book between the two, with a bounded number of lines.

/**
 * @typedef {object} Entry
 * @property {number} open handlers that have not finished
 * @property {string | null} pos where the entry ends; null if that position belongs to a stream that is gone
 * @property {boolean} message whether a message (something to acknowledge) is in it
 * @property {number} frames how many frames it stands for
 * @property {number} began when it was opened, in milliseconds
 */

/** Ordered entries; the safe position moves over the finished ones at the front. */
export class Ledger {
  #limit;
  /** @type {Entry[]} */
  #entries = [];
  #acked = false;
  /** @type {string | null} */
  #base = null;

  /** How many frames came after the safe position. */
  waiting = 0;

  /** The latest position that an ack may name. @type {string | null} */
  safe = null;

  /** Whether a message has become safe that no ack has covered yet. */
  due = false;

  /** @param {number} limit how many entries are kept apart; past it, new ones are booked together and acked together */
  constructor(limit) {
    this.#limit = limit;
  }

  /** Where to resume so that all that is unfinished comes again. @type {string | null} */
  get resume() {
    return this.safe ?? this.#base;
  }

  /** When the oldest unfinished handler began, in milliseconds; null if there is none. @type {number | null} */
  get oldest() {
    return this.#entries[0]?.began ?? null;
  }

  /**
   * Books something whose handler is about to run.
   *
   * @param {string} pos
   * @param {boolean} message
   * @returns {() => void} to be called when the handler has finished; further calls do nothing
   */
  open(pos, message) {
    let entry = this.#entries.at(-1);
    if (entry === undefined || this.#entries.length < this.#limit) {
      entry = { open: 0, pos, message: false, frames: 0, began: Date.now() };
      this.#entries.push(entry);
    }
    entry.open += 1;
    entry.frames += 1;
    this.waiting += 1;
    entry.pos = pos;
    entry.message ||= message;
    let finished = false;
    return () => {
      if (!finished) {
        finished = true;
        entry.open -= 1;
        this.#settle();
      }
    };
  }

  /**
   * Books a position that needs no handler.
   *
   * @param {string} pos
   */
  passed(pos) {
    this.open(pos, false)();
  }

  /**
   * Starts over at a position of another stream: older positions mean nothing there and are not named any more.
   * Handlers that still run go on holding back the acks of what comes after them.
   *
   * @param {string} pos
   */
  rebase(pos) {
    for (const entry of this.#entries) {
      entry.pos = null;
      entry.message = false;
    }
    this.safe = null;
    this.#base = pos;
    this.due = false;
    this.#acked = false;
    this.passed(pos);
  }

  /** The ack that was due has been sent. */
  sent() {
    this.due = false;
    this.#acked = true;
  }

  /** Makes the last ack due again: the socket that carried it may have died before it arrived. */
  repeat() {
    this.due ||= this.#acked;
  }

  #settle() {
    let done = 0;
    for (const entry of this.#entries) {
      if (entry.open > 0) {
        break;
      }
      done += 1;
      this.waiting -= entry.frames;
      if (entry.pos !== null) {
        this.safe = entry.pos;
        this.due ||= entry.message;
      }
    }
    this.#entries.splice(0, done);
  }
}
