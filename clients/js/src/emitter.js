// A small event emitter whose listeners can neither break the client nor each other.
// EventTarget would not do: it drops what a listener returns, and acks wait for exactly that.

/**
 * @template {Record<string, any>} Events
 */
export class Emitter {
  /** @type {Map<keyof Events, Set<(event: any) => unknown>>} */
  #listeners = new Map();
  #failed;

  /** @param {(error: unknown, type: string) => void} failed told of each listener that threw or rejected */
  constructor(failed) {
    this.#failed = failed;
  }

  /**
   * @template {keyof Events & string} Type
   * @param {Type} type
   * @param {(event: Events[Type]) => unknown} listener
   * @returns {() => void} takes the listener off again
   */
  on(type, listener) {
    if (typeof listener !== "function") {
      throw new TypeError(`a listener of "${type}" must be a function`);
    }
    let listeners = this.#listeners.get(type);
    if (listeners === undefined) {
      listeners = new Set();
      this.#listeners.set(type, listeners);
    }
    listeners.add(listener);
    return () => this.off(type, listener);
  }

  /**
   * @template {keyof Events & string} Type
   * @param {Type} type
   * @param {(event: Events[Type]) => unknown} listener
   */
  off(type, listener) {
    this.#listeners.get(type)?.delete(listener);
  }

  /**
   * @param {keyof Events & string} type
   * @returns {boolean} whether anybody listens
   */
  has(type) {
    return (this.#listeners.get(type)?.size ?? 0) > 0;
  }

  /**
   * Runs the listeners of an event in the order they were added.
   *
   * @template {keyof Events & string} Type
   * @param {Type} type
   * @param {Events[Type]} event
   * @returns {Promise<void> | null} fulfilled when every promise that a listener returned has settled;
   *   null if there was none. It never rejects.
   */
  emit(type, event) {
    const pending = [];
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        const result = /** @type {any} */ (listener(event));
        if (typeof result?.then === "function") {
          pending.push(Promise.resolve(result).catch((error) => this.#failed(error, type)));
        }
      } catch (error) {
        this.#failed(error, type);
      }
    }
    return pending.length === 0 ? null : Promise.all(pending).then(() => undefined);
  }
}
