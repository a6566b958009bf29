// The one error class of the package: what the `error` event carries.
// `kind` tells an app what to do about it; no message ever holds a URL's query, because tokens travel there.

/** @import { ImErrorKind } from "./index.js" */

/**
 * A failure that the client survived and reports.
 *
 * @property kind where it happened: "listener", "get-url", "url", "frame" or "storage".
 */
export class ImClientError extends Error {
  /**
   * @param {ImErrorKind} kind
   * @param {string} message
   * @param {{cause?: unknown}} [options]
   */
  constructor(kind, message, options) {
    super(message, options);
    this.name = "ImClientError";
    this.kind = kind;
  }
}
