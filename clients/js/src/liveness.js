// Tells whether the other end still answers: a ping each period, and a deadline for anything at all to come back.
// One timer at a time. Made for pages whose timers a browser delays or stops while nobody looks.

/** A deadline that fires this late was held up by the browser, and so may be the frame that would have met it. */
const LATE_MS = 1_000;

export class Liveness {
  #periodMs;
  #timeoutMs;
  #ping;
  #dead;
  #lag;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {number | null} when the unanswered ping left */
  #sentAt = null;
  #awaiting = false;
  #spared = false;

  /**
   * @param {object} options
   * @param {number} options.periodMs between two pings
   * @param {number} options.timeoutMs from a ping until the socket counts as dead
   * @param {() => void} options.ping sends one
   * @param {() => void} options.dead called once, after which nothing else is
   * @param {(ms: number) => void} options.lag told of each round trip
   */
  constructor({ periodMs, timeoutMs, ping, dead, lag }) {
    this.#periodMs = periodMs;
    this.#timeoutMs = timeoutMs;
    this.#ping = ping;
    this.#dead = dead;
    this.#lag = lag;
    this.#rest();
  }

  /** Any frame came. */
  heard() {
    if (this.#awaiting) {
      this.#awaiting = false;
      this.#spared = false;
      this.#rest();
    }
  }

  /** A pong came; call after `heard`. */
  pong() {
    if (this.#sentAt !== null) {
      this.#lag(performance.now() - this.#sentAt);
      this.#sentAt = null;
    }
  }

  /** Asks now instead of at the end of the period, if no answer is awaited already. */
  check() {
    if (!this.#awaiting) {
      this.#ask();
    }
  }

  /** Ends the timer. Nothing is called afterwards. */
  stop() {
    clearTimeout(this.#timer);
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), this.#periodMs);
  }

  #ask() {
    this.#awaiting = true;
    this.#sentAt = performance.now();
    clearTimeout(this.#timer);
    const deadline = this.#sentAt + this.#timeoutMs;
    this.#timer = setTimeout(() => this.#expired(deadline), this.#timeoutMs);
    this.#ping();
  }

  /** @param {number} deadline */
  #expired(deadline) {
    if (performance.now() - deadline > LATE_MS && !this.#spared) {
      this.#spared = true;
      this.#ask();
      return;
    }
    this.#dead();
  }
}
