// Keeps the position across page loads, so that a reload resumes where the page before it stopped.
// The store is the app's (load and save of one string); here it is guarded, encoded, and never written twice alike.

import { ImClientError } from "./errors.js";

/** @import { ImStorage } from "./index.js" */

export class PositionStore {
  #storage;
  #failed;
  /** @type {string | null} */
  #written = null;

  /**
   * @param {ImStorage} storage
   * @param {(error: ImClientError) => void} failed told when the store throws or holds something unreadable
   */
  constructor(storage, failed) {
    this.#storage = storage;
    this.#failed = failed;
  }

  /** @returns {{client: string, pos: string} | null} */
  load() {
    try {
      const value = this.#storage.load();
      if (value === null || value === undefined) {
        return null;
      }
      const [client, pos] = JSON.parse(value);
      if (typeof client !== "string" || typeof pos !== "string") {
        throw new TypeError("not a stored position");
      }
      return { client, pos };
    } catch (cause) {
      this.#failed(new ImClientError("storage", "the stored position could not be read", { cause }));
      return null;
    }
  }

  /**
   * @param {string} client
   * @param {string} pos
   */
  save(client, pos) {
    const value = JSON.stringify([client, pos]);
    if (value === this.#written) {
      return;
    }
    try {
      this.#storage.save(value);
      this.#written = value;
    } catch (cause) {
      this.#failed(new ImClientError("storage", "the position could not be stored", { cause }));
    }
  }
}

/**
 * A store in the tab's sessionStorage: it lasts over reloads and ends with the tab.
 *
 * @param {string} [key] one per ImCluster that the page talks to
 * @returns {ImStorage}
 */
export function sessionPosition(key = "imcluster.position") {
  return {
    load: () => sessionStorage.getItem(key),
    save: (value) => sessionStorage.setItem(key, value),
  };
}
