// The public types of imcluster-client, by hand, so that each word of documentation is where editors show it.
// types/public.test-d.ts holds them against the implementation, which tsc checks in strict mode.

/** What `getUrl` is told. */
export interface UrlRequest {
  /** Attempts that failed since the last socket that lasted; 0 at first. */
  readonly attempt: number;
  /** URL (without its query) of the server that just failed; hand it on as `avoid` of `prev_connect_server`. */
  readonly avoid: string | null;
  /** Close code of the last socket; 1006 when it was lost without one. */
  readonly lastCode: number | null;
  /** Aborted when the answer is no longer wanted: pass it to `fetch`. */
  readonly signal: AbortSignal;
}

/** What the client uses of a WebSocket; browsers' and the `ws` package's fit. */
export interface WebSocketLike {
  readonly readyState: number;
  binaryType: string;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocol: string) => any;

/** Keeps one short string over page loads. Both calls are synchronous; what they throw is told by `error`. */
export interface ImStorage {
  load(): string | null;
  save(value: string): void;
}

export interface ImOptions {
  /**
   * Asks the app's backend (which calls `prev_connect_server`) for a fresh `ws[s]://…/ws?token=…`.
   * Called for every attempt, since a token works once. If it throws, the client tries again later;
   * to give up instead, call `close()` in it.
   */
  getUrl(request: UrlRequest): string | Promise<string>;
  /** Default: the platform's. Node 20 has none: pass that of the `ws` package. */
  WebSocket?: WebSocketConstructor;
  /**
   * "auto" (default): a message is acked once every listener has returned and every promise that one returned has
   * settled, whether well or not (a failure is told by `error`). "manual": once the app called `message.ack()`.
   */
  ack?: "auto" | "manual";
  /** How long acks (and stores of the position) are gathered, in ms. Default 50. */
  ackDelayMs?: number;
  backoff?: {
    /** Cap of the first delay in ms; it doubles with each failure. Default 500. */
    baseMs?: number;
    /** Cap of every delay in ms. Default 30000. */
    maxMs?: number;
    /** A socket that lasted this many ms lets the backoff start over. Default 10000. */
    stableMs?: number;
    /** A number in [0, 1). Default Math.random. */
    random?: () => number;
  };
  /** From opening a socket to its hello, in ms. Default 10000. */
  handshakeTimeoutMs?: number;
  /** How long `getUrl` may take, in ms. Default 10000. */
  getUrlTimeoutMs?: number;
  /** From a ping until any frame must have come, in ms. Default 10000. */
  pongTimeoutMs?: number;
  /** How many ids of messages, and of receipts, are remembered. Default 10000. */
  dedupeSize?: number;
  /** Where the position survives a reload, for example `sessionPosition()`. Default: nowhere. */
  storage?: ImStorage;
}

/**
 * connecting: no socket; one is being opened. open: in use. moving: in use, while another one is being opened.
 * waiting: no socket; the next attempt comes after a delay. closed: at rest until `connect()`.
 */
export type ImState = "connecting" | "open" | "moving" | "waiting" | "closed";

export interface ImMessage {
  /** The same for every receiver of a send. */
  readonly id: string;
  readonly from: string;
  /** null for a message to the client itself. */
  readonly chan: string | null;
  /** JSON as it was sent, a string, or a Uint8Array for bytes. */
  readonly data: unknown;
  readonly pos: string;
  /** Manual mode: this message is safe. An ack goes out once all before it are, too. In auto mode it does nothing. */
  ack(): void;
}

export interface ImReceipt {
  /** Id of the message sent with `receipt=True`. */
  readonly id: string;
  readonly to: string;
  readonly status: "delivered" | "offline";
  readonly pos: string;
}

export interface ImOpen {
  readonly client: string;
  readonly server: string;
  /** A position was resumed from, and nothing after it is missing. */
  readonly recovered: boolean;
  /** Another socket was in use until this moment. */
  readonly moved: boolean;
}

export interface ImGap {
  /**
   * missed: the server no longer has all since the position. closed-for-gap: the last socket was closed with 4002.
   * client-changed: the URL now belongs to another client than the position.
   */
  readonly reason: "missed" | "closed-for-gap" | "client-changed";
}

export interface ImStateChange {
  readonly state: ImState;
  /** Close code of the socket that ended last; for "closed" what ended the client: 1000 after `close()`, else 4500–4999. */
  readonly code: number | null;
  readonly reason: string;
  readonly attempt: number;
  /** Only for "waiting": ms until the next attempt. */
  readonly retryInMs: number | null;
}

export type ImErrorKind = "listener" | "get-url" | "url" | "frame" | "storage";

/** A failure that the client survived. The cause of one of `getUrl`, of a listener or of the store is in `cause`. */
export class ImClientError extends Error {
  constructor(kind: ImErrorKind, message: string, options?: { cause?: unknown });
  kind: ImErrorKind;
}

export type ImEvents = {
  /** Each message once, in the order accepted for this client. */
  message: ImMessage;
  /** Each receipt once. */
  receipt: ImReceipt;
  /** A socket is in use; told before anything it brings. */
  open: ImOpen;
  /** Something may be missing: reload state from the backend. Told when the new socket is in use, so that the reload misses nothing. */
  gap: ImGap;
  state: ImStateChange;
  /** A round trip of a ping. */
  lag: { readonly ms: number };
  error: ImClientError;
};

/**
 * One client's connection to an ImCluster: it stays connected, resumes without loss, and gives every message once.
 * Nothing happens before `connect()`; add listeners first.
 */
export class ImClient {
  /** @throws {TypeError | RangeError} an option is not what it must be */
  constructor(options: ImOptions);
  readonly state: ImState;
  /** Of the last frame that was taken. Opaque. A new socket resumes there, or before what is still being handled. */
  readonly position: string | null;
  /** Known from the first hello on. */
  readonly clientId: string | null;
  /** Name of the server in use. */
  readonly server: string | null;
  /** The last round trip in ms. */
  readonly lag: number | null;
  /** Starts, or starts again after "closed"; else does nothing. */
  connect(): void;
  /** Ends sockets and timers. `connect()` may follow, and resumes. */
  close(): void;
  /**
   * Adds a listener. One that throws, or whose promise is rejected, is told by `error` and harms nothing else.
   *
   * @returns takes it off again
   */
  on<Type extends keyof ImEvents>(type: Type, listener: (event: ImEvents[Type]) => unknown): () => void;
  off<Type extends keyof ImEvents>(type: Type, listener: (event: ImEvents[Type]) => unknown): void;
}

/** The close codes that mean something to a client. */
export const CloseCode: Readonly<{
  NORMAL: 1000;
  PROTOCOL_ERROR: 1002;
  ABNORMAL: 1006;
  GOING_AWAY: 1012;
  OVERLOADED: 1013;
  PING_TIMEOUT: 4000;
  SLOW_CONSUMER: 4001;
  GAP: 4002;
  DISCONNECTED: 4500;
  BAD_FRAME: 4501;
  TOO_MANY_SOCKETS: 4502;
}>;

/** Whether a client closed with this code must stay away (4500–4999). */
export function isFinal(code: number): boolean;

/** A store in the tab's sessionStorage. Use one key per ImCluster that the page talks to. */
export function sessionPosition(key?: string): ImStorage;
