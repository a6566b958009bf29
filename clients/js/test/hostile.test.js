// A server that breaks the protocol: every kind of broken frame, floods of them, and numbers made to do harm.
// None may throw, be delivered, move the position or end the client; each is reported.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameError, parseFrame } from "../src/frames.js";
import { Link } from "../src/link.js";
import { connected, join, serve, settle } from "../support/harness.js";

const good = {
  hello: { t: "hello", client: "ann", server: "im-0", pos: "1", recovered: true, ping: 25 },
  msg: { t: "msg", id: "m", pos: "1", from: "bob", data: 1 },
  receipt: { t: "receipt", id: "m", to: "bob", status: "delivered", pos: "1" },
  move: { t: "move", url: "ws://h/ws", pos: "1" },
  pong: { t: "pong", pos: "1" },
};

test("well-formed frames are read", () => {
  for (const [t, frame] of Object.entries(good)) {
    assert.equal(parseFrame(JSON.stringify(frame)).t, t);
  }
  assert.equal(parseFrame('{"t":"of a later version"}'), null);
});

test("a required field that is missing or of another type is refused, whichever it is", () => {
  const optional = new Set(["recovered", "ping"]);
  for (const frame of Object.values(good)) {
    for (const name of Object.keys(frame).filter((key) => !optional.has(key))) {
      const bad = name === "data" ? [undefined] : [undefined, null, 7, {}, ["1"], true];
      for (const value of bad) {
        const text = JSON.stringify({ ...frame, [name]: value });
        assert.throws(() => parseFrame(text), FrameError, text);
      }
    }
  }
});

test("texts that are no frame are refused", () => {
  const texts = ["", " ", "null", "7", '"msg"', "[]", "{}", "{", '{"t":', "[".repeat(100_000), "\u0000", '{"t":"msg"}'];
  for (const text of texts) {
    assert.throws(() => parseFrame(text), FrameError, text.slice(0, 20));
  }
  for (const data of [new ArrayBuffer(2), new Uint8Array(2), null, undefined, 7]) {
    assert.throws(() => parseFrame(data), FrameError);
  }
});

test("values that would do harm further on are refused or made harmless", () => {
  const read = (frame) => parseFrame(JSON.stringify(frame));
  assert.throws(() => read({ ...good.msg, pos: "" }), FrameError);
  assert.throws(() => read({ ...good.msg, pos: "x".repeat(513) }), FrameError);
  assert.throws(() => read({ ...good.msg, data: "*", b64: true }), FrameError);
  assert.throws(() => read({ ...good.msg, data: 7, b64: true }), FrameError);
  assert.throws(() => read({ ...good.receipt, status: "lost" }), FrameError);
  assert.equal(read({ ...good.hello, recovered: "yes" }).recovered, false);
  for (const [ping, ms] of [[25, 25_000], [0.001, 1_000], [1e12, 3_600_000], [0, 25_000], [-1, 25_000], ["9", 25_000], [null, 25_000]]) {
    assert.equal(read({ ...good.hello, ping }).pingMs, ms);
  }
  assert.equal({}.polluted, undefined);
  parseFrame('{"t":"msg","id":"m","pos":"1","from":"b","data":{"__proto__":{"polluted":1}},"__proto__":{"polluted":1}}');
  assert.equal({}.polluted, undefined);
});

test("a broken frame is reported and skipped; those around it are taken", async (t) => {
  const { peer, client, events } = await connected(t);
  peer.msg("m1", "1");
  peer.sendRaw("{");
  peer.sendRaw(Buffer.from([1, 2, 3]));
  peer.send({ t: "msg", id: "m2", pos: "666" });
  peer.hello();
  peer.send({ t: "unknown", pos: "667" });
  for (let i = 0; i < 4; i += 1) {
    const error = await events.error.take();
    assert.equal(error.kind, "frame");
  }
  assert.equal(client.position, "1");
  peer.msg("m3", "3");
  await settle(peer, events);
  assert.deepEqual(events.ids(), ["m1", "m3"]);
  assert.equal(events.count("error"), 4);
  assert.equal(events.count("open"), 1);
});

test("a server that sends nothing but broken frames is left, from the last good position, with growing backoff", async (t) => {
  const { server, peer, events, requests } = await connected(t);
  peer.msg("m1", "1");
  for (let i = 0; i < 500; i += 1) {
    peer.sendRaw("broken");
  }
  assert.equal((await peer.closed()).code, 4501);
  const next = await server.peer();
  assert.equal(next.since, "1");
  next.hello({ pos: "1", recovered: true });
  await events.until("open");
  assert.equal(events.count("error"), 16);
  assert.deepEqual([requests[1].attempt, requests[1].avoid], [1, server.base]);
});

test("close() while a broken frame is told of is the end", async (t) => {
  const { peer, client, events } = await connected(t);
  client.on("error", () => client.close());
  for (let i = 0; i < 40; i += 1) {
    peer.sendRaw("broken");
  }
  assert.equal((await peer.closed()).code, 1000);
  assert.equal(events.count("error"), 1);
  assert.equal(client.state, "closed");
});

test("a link that is let go of while it tells of its last broken frame tells nothing more", () => {
  const told = [];
  class Socket {
    close(code) {
      told.push(code);
    }
  }
  let socket;
  const link = new Link(
    {
      url: "ws://h/ws",
      address: "ws://h/ws",
      since: null,
      WebSocket: function make() {
        socket = new Socket();
        return socket;
      },
      handshakeTimeoutMs: 600_000,
      pongTimeoutMs: 600_000,
    },
    {
      hello: () => told.push("hello"),
      broken: () => told.push("broken") === 17 && link.end(),
      down: () => told.push("down"),
    },
  );
  const { onmessage } = socket;
  onmessage({ data: JSON.stringify(good.hello) });
  for (let i = 0; i < 16; i += 1) {
    onmessage({ data: "broken" });
  }
  assert.deepEqual(told, ["hello", ...Array(16).fill("broken"), 1000]);
});

test("hellos that are none cost an attempt each and nothing more", async (t) => {
  const server = await serve(t);
  const { client, events } = join(t, server);
  client.connect();
  const openings = ["{", '{"t":"pong","pos":"1"}', '{"t":"hello"}', '{"t":"later"}', Buffer.from("{}")];
  for (const opening of openings) {
    const peer = await server.peer();
    peer.sendRaw(opening);
    assert.equal((await peer.closed()).code, 4501);
  }
  (await server.peer()).hello();
  await events.until("open");
  assert.equal(client.position, "0");
});

test("a server that closes right after each hello is not come back to at full speed", async (t) => {
  const { server, peer, events, requests } = await connected(t, { backoff: { baseMs: 2, random: () => 0.5 } });
  peer.close(1013);
  const delays = [(await events.until("waiting")).retryInMs];
  for (let i = 0; i < 3; i += 1) {
    const next = await server.peer();
    next.hello({ recovered: true });
    next.close(1013);
    delays.push((await events.until("waiting")).retryInMs);
  }
  assert.ok(delays[3] > delays[0], String(delays));
  assert.equal(requests.at(-1).attempt, 3);
});

test("tokens are in nothing that the app is told", async (t) => {
  const server = await serve(t);
  server.refusals.push(401, 503);
  class Loud {
    constructor(url) {
      throw new SyntaxError(`the URL ${url} is invalid`);
    }
  }
  const refused = join(t, server);
  const broken = join(t, server, { WebSocket: Loud });
  refused.client.connect();
  broken.client.connect();
  const error = await broken.events.error.take();
  assert.match(error.message, /SyntaxError/);
  (await server.peer()).hello();
  await refused.events.until("open");
  broken.client.close();
  const told = [...refused.events.all, ...broken.events.all, ...refused.requests, ...broken.requests];
  const words = JSON.stringify(told, (_, value) => (value instanceof Error ? [value.message, value.stack, value.cause] : value));
  assert.ok(!words.includes("secret"), words);
});
