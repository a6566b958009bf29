// A bounded memory of keys that were seen: what makes at-least-once delivery look like exactly once.
// A Set keeps insertion order, so its first key is the one that was not seen for longest.

/** The most recently seen keys, at most `size` of them. */
export class RecentKeys {
  #size;
  /** @type {Set<string>} */
  #keys = new Set();

  /** @param {number} size how many keys are remembered, at least 1 */
  constructor(size) {
    this.#size = size;
  }

  /**
   * Notes a key and tells whether it is new.
   *
   * @param {string} key
   * @returns {boolean} false if the key is among the remembered ones
   */
  add(key) {
    const known = this.#keys.delete(key);
    this.#keys.add(key);
    if (this.#keys.size > this.#size) {
      const [oldest] = this.#keys;
      this.#keys.delete(/** @type {string} */ (oldest));
    }
    return !known;
  }

  /** Forgets all keys. */
  clear() {
    this.#keys.clear();
  }
}
