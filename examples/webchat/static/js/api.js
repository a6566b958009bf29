// Calls to the web chat's own service: forms as ImCore's front ends post them, failures as one readable sentence.
// What is worth trying again (503, no network) is told apart from what is not.

const TIMEOUT_MS = 8_000;

/** A call that failed; `retry` tells whether the same call may succeed later. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {boolean} retry
   * @param {ErrorOptions} [options]
   */
  constructor(message, retry, options) {
    super(message, options);
    this.name = "ApiError";
    this.retry = retry;
  }
}

/**
 * Posts a form.
 *
 * @param {string} path
 * @param {Record<string, string | string[] | null | undefined>} fields null and undefined leave a field out
 * @param {AbortSignal} [signal] gives the call up
 * @returns {Promise<any>} the answer, whose code is 0
 * @throws {ApiError}
 */
export function post(path, fields, signal) {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== null && item !== undefined) {
        form.append(name, item);
      }
    }
  }
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  return call(path, { body: form, signal: signal ? AbortSignal.any([signal, limit]) : limit });
}

/**
 * Sends a file; the service tells how it goes by pushes, not by this answer.
 *
 * @param {Record<string, string>} query
 * @param {File} file
 * @returns {Promise<any>} the answer once the whole file has arrived
 * @throws {ApiError}
 */
export function upload(query, file) {
  return call(`/api/files?${new URLSearchParams(query)}`, {
    body: file,
    headers: { "Content-Type": "application/octet-stream" },
  });
}

/**
 * @param {string} path
 * @param {RequestInit} init
 */
async function call(path, init) {
  let response;
  let answer;
  try {
    response = await fetch(path, { method: "POST", ...init });
    answer = await response.json();
  } catch (cause) {
    throw new ApiError("The web chat's service can't be reached just now.", true, { cause });
  }
  if (answer.code !== 0) {
    throw new ApiError(answer.msg ?? `The service answered ${response.status}.`, response.status === 503);
  }
  return answer;
}
