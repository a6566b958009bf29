// Full-jitter exponential backoff: how long to wait before the next attempt.
// Full jitter (a uniform draw below the cap) is what keeps a crowd that lost one server from returning as a crowd.

import { startExponent } from "./codes.js";

const HIGHEST_EXPONENT = 30;

/** Counts attempts and draws delays. Pure but for the counter and the injected random source. */
export class Backoff {
  #baseMs;
  #maxMs;
  #random;

  /** Attempts that failed since the last reset. */
  attempt = 0;

  /**
   * @param {{baseMs: number, maxMs: number, random: () => number}} options
   *   milliseconds; `random` gives a number in [0, 1)
   */
  constructor({ baseMs, maxMs, random }) {
    this.#baseMs = baseMs;
    this.#maxMs = maxMs;
    this.#random = random;
  }

  /** Starts over: the last connection was a good one. */
  reset() {
    this.attempt = 0;
  }

  /**
   * Draws the delay of the next attempt and counts it.
   *
   * @param {number | null} code the close code that made it necessary
   * @returns {number} milliseconds in [0, min(maxMs, baseMs × 2^(attempt + start of the code)))
   */
  next(code) {
    const exponent = Math.min(this.attempt + startExponent(code), HIGHEST_EXPONENT);
    this.attempt += 1;
    return this.#random() * Math.min(this.#maxMs, this.#baseMs * 2 ** exponent);
  }

  /**
   * A short delay for when the network is known to be back: still jittered, since a whole office gets it back at once.
   *
   * @returns {number} milliseconds in [0, baseMs)
   */
  quick() {
    return this.#random() * this.#baseMs;
  }
}
