// What the tests of the whole client share: a server, a client joined to it, and every event it told, in order.
// Both are gone when the test is over.

import { WebSocket } from "ws";
import { ImClient } from "../src/index.js";
import { FakeServer, Queue } from "./fake-server.js";

const EVENTS = ["message", "receipt", "open", "gap", "state", "lag", "error"];

/** The client's events: queues by type, and one list of all. */
class Events {
  all = [];

  constructor(client) {
    for (const type of EVENTS) {
      this[type] = new Queue();
      client.on(type, (event) => {
        this.all.push([type, event]);
        this[type].put(event);
      });
    }
  }

  /** Waits until the client says it is in this state. */
  async until(state) {
    for (;;) {
      const event = await this.state.take(`state ${state}`);
      if (event.state === state) {
        return event;
      }
    }
  }

  ids() {
    return this.all.filter(([type]) => type === "message").map(([, message]) => message.id);
  }

  count(type) {
    return this.all.filter(([name]) => name === type).length;
  }
}

/** A started server. */
export async function serve(t) {
  const server = await FakeServer.start();
  t.after(() => server.stop());
  return server;
}

/** A client of the server, not yet connected. Delays are short; a random of 0 leaves none. */
export function join(t, server, options = {}) {
  const requests = [];
  const client = new ImClient({
    getUrl: (request) => {
      requests.push(request);
      return server.url();
    },
    WebSocket,
    ackDelayMs: 1,
    backoff: { baseMs: 20, random: () => 0 },
    ...options,
  });
  const events = new Events(client);
  t.after(() => client.close());
  return { client, events, requests };
}

/** A connected client with the server's end of its socket. */
export async function connected(t, options = {}, hello = {}) {
  const server = await serve(t);
  const joined = join(t, server, options);
  joined.client.connect();
  const peer = await server.peer();
  peer.hello(hello);
  await joined.events.until("open");
  return { server, peer, ...joined };
}

/** Lets everything that is on its way arrive: a round trip of the protocol itself. */
export async function settle(peer, events) {
  const pos = `settled-${Math.random()}`;
  peer.send({ t: "receipt", id: pos, to: "nobody", status: "offline", pos });
  for (;;) {
    const receipt = await events.receipt.take("the settling receipt");
    if (receipt.id === pos) {
      return;
    }
  }
}
