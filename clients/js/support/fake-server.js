// A server that speaks imcluster.v1.json only as far as a test tells it to: each socket is a script's to play.
// Real sockets on a port of the loopback that the system picks; every wait has an end.

import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const PATIENCE_MS = 5_000;

/** Values that come one by one and are awaited one by one. */
export class Queue {
  #values = [];
  #takers = [];

  get size() {
    return this.#values.length;
  }

  put(value) {
    const taker = this.#takers.shift();
    if (taker) {
      taker(value);
    } else {
      this.#values.push(value);
    }
  }

  /** The next value, or a rejection that says what did not come. */
  take(what = "a value") {
    if (this.#values.length > 0) {
      return Promise.resolve(this.#values.shift());
    }
    return new Promise((resolve, reject) => {
      const taker = (value) => {
        clearTimeout(timer);
        resolve(value);
      };
      const timer = setTimeout(() => {
        this.#takers.splice(this.#takers.indexOf(taker), 1);
        reject(new Error(`${what} did not come within ${PATIENCE_MS} ms`));
      }, PATIENCE_MS);
      this.#takers.push(taker);
    });
  }
}

/** One socket as its server sees it. */
class Peer {
  #socket;
  #frames = new Queue();
  #closed = new Queue();

  constructor(socket, url) {
    this.#socket = socket;
    this.url = url;
    this.since = url.searchParams.get("since");
    this.token = url.searchParams.get("token");
    socket.on("message", (data) => this.#frames.put(JSON.parse(String(data))));
    socket.on("close", (code, reason) => this.#closed.put({ code, reason: String(reason) }));
  }

  get isOpen() {
    return this.#socket.readyState === 1;
  }

  get protocol() {
    return this.#socket.protocol;
  }

  send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  sendRaw(data) {
    this.#socket.send(data);
  }

  hello(fields = {}) {
    this.send({ t: "hello", client: "ann", server: "im-0", pos: "0", recovered: false, ping: 25, ...fields });
  }

  msg(id, pos, fields = {}) {
    this.send({ t: "msg", id, pos, from: "bob", data: id, ...fields });
  }

  /** The next frame from the client; of this type, if one is given. */
  async next(type) {
    for (;;) {
      const frame = await this.#frames.take(`a frame ${type ?? ""}`);
      if (type === undefined || frame.t === type) {
        return frame;
      }
    }
  }

  /** How many frames have come that nobody took. */
  get waiting() {
    return this.#frames.size;
  }

  closed() {
    return this.#closed.take("the close");
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** Goes without a close frame, as a killed server does. */
  vanish() {
    this.#socket.terminate();
  }
}

export class FakeServer {
  #http = createServer((_, response) => response.writeHead(404).end());
  #sockets = new WebSocketServer({ noServer: true });
  #peers = new Queue();
  #streams = new Set();
  #tokens = 0;

  /** HTTP statuses that the next handshakes are answered with. */
  refusals = [];
  /** Whether handshakes are left without any answer. */
  silent = false;
  handshakes = 0;

  constructor() {
    this.#http.on("connection", (stream) => {
      this.#streams.add(stream);
      stream.on("close", () => this.#streams.delete(stream));
    });
    this.#http.on("upgrade", (request, socket, head) => {
      this.handshakes += 1;
      socket.on("error", () => socket.destroy());
      const status = this.refusals.shift();
      if (this.silent) {
        return;
      }
      if (status !== undefined) {
        socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => {
        this.#peers.put(new Peer(webSocket, new URL(request.url, "ws://localhost")));
      });
    });
  }

  static async start() {
    const server = new FakeServer();
    server.#http.listen(0, "127.0.0.1");
    await once(server.#http, "listening");
    return server;
  }

  get base() {
    return `ws://127.0.0.1:${this.#http.address().port}/ws`;
  }

  /** A URL with a token of its own. */
  url() {
    this.#tokens += 1;
    return `${this.base}?token=secret${this.#tokens}`;
  }

  /** The next socket. */
  peer() {
    return this.#peers.take("a socket");
  }

  /** How many sockets have come that nobody took. */
  get waiting() {
    return this.#peers.size;
  }

  get open() {
    return this.#sockets.clients.size;
  }

  async stop() {
    for (const stream of this.#streams) {
      stream.destroy();
    }
    await new Promise((resolve) => this.#http.close(resolve));
  }
}
