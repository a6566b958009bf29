// Tells when a page woke up or got its network back, and when it is about to go away.
// Outside a browser there is nothing to listen to, and nothing happens.

/**
 * @typedef {{addEventListener?: EventTarget["addEventListener"], removeEventListener?: EventTarget["removeEventListener"],
 *   document?: {visibilityState: string, addEventListener: EventTarget["addEventListener"],
 *   removeEventListener: EventTarget["removeEventListener"]}}} Scope a window, a worker's scope or Node's global object
 */

/**
 * @param {Scope} scope
 * @param {{wake: () => void, hide: () => void}} hooks
 * @returns {() => void} stops listening
 */
export function watchPage(scope, { wake, hide }) {
  const { document } = scope;
  const visibility = () => (document?.visibilityState === "visible" ? wake() : hide());
  scope.addEventListener?.("online", wake);
  scope.addEventListener?.("pageshow", wake);
  scope.addEventListener?.("pagehide", hide);
  document?.addEventListener("visibilitychange", visibility);
  return () => {
    scope.removeEventListener?.("online", wake);
    scope.removeEventListener?.("pageshow", wake);
    scope.removeEventListener?.("pagehide", hide);
    document?.removeEventListener("visibilitychange", visibility);
  };
}
