// Opening a socket and getting it back: URLs, hello, since, close codes, backoff and what the app is told of them.
// Against real sockets; the fake server closes, refuses and falls silent as each test says.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ImClient } from "../src/index.js";
import { connected, join, serve, settle } from "../support/harness.js";

test("asks for a URL, offers the subprotocol, and is open with the hello", async (t) => {
  const server = await serve(t);
  const { client, events, requests } = join(t, server);
  assert.equal(client.state, "closed");
  client.connect();
  client.connect();
  assert.equal(client.state, "connecting");
  const peer = await server.peer();
  assert.equal(peer.protocol, "imcluster.v1.json");
  assert.equal(peer.token, "secret1");
  assert.equal(peer.since, null);
  assert.equal(client.state, "connecting");
  peer.hello({ pos: "5-0" });
  assert.deepEqual(await events.open.take(), { client: "ann", server: "im-0", recovered: false, moved: false });
  assert.deepEqual([client.state, client.position, client.clientId, client.server], ["open", "5-0", "ann", "im-0"]);
  const { signal, ...request } = requests[0];
  assert.deepEqual(request, { attempt: 0, avoid: null, lastCode: null });
  assert.ok(signal instanceof AbortSignal);
  assert.equal(events.count("gap"), 0);
  assert.equal(requests.length, 1);
});

test("resumes from the last frame of whatever kind, with a new URL", async (t) => {
  const { server, peer, events, requests, client } = await connected(t, {}, { pos: "1" });
  let current = peer;
  const steps = [
    ["1", () => undefined],
    ["2", () => current.msg("m2", "2")],
    ["3", () => current.send({ t: "receipt", id: "r", to: "bob", status: "delivered", pos: "3" })],
    ["4 &", () => current.send({ t: "pong", pos: "4 &" })],
  ];
  for (const [pos, act] of steps) {
    act();
    current.close(1012, "bye");
    current = await server.peer();
    assert.equal(current.since, pos);
    current.hello({ pos, recovered: true });
    assert.equal((await events.until("open")).state, "open");
  }
  assert.equal(new Set(requests.map(({ lastCode }) => lastCode)).size, 2);
  assert.equal(requests.at(-1).lastCode, 1012);
  assert.equal(requests.at(-1).avoid, server.base);
  assert.equal(events.count("gap"), 0);
  assert.equal(events.all.filter(([type, open]) => type === "open" && open.recovered).length, 4);
  assert.equal(client.position, "4 &");
});

for (const code of [1000, 1011, 1012, 1013, 4000, 4001, 4499]) {
  test(`close ${code} is followed by a new socket`, async (t) => {
    const { server, peer, events, requests } = await connected(t);
    peer.close(code, "why");
    const waiting = await events.until("waiting");
    assert.deepEqual([waiting.code, waiting.reason], [code, "why"]);
    assert.ok(waiting.retryInMs >= 0);
    (await server.peer()).hello({ recovered: true });
    await events.until("open");
    assert.equal(requests[1].avoid, code >= 1001 && code < 4000 ? server.base : null);
  });
}

for (const code of [4500, 4501, 4502, 4999]) {
  test(`close ${code} ends the client, and says so`, async (t) => {
    const { server, peer, events, client } = await connected(t);
    peer.close(code, "reason");
    const closed = await events.until("closed");
    assert.deepEqual([closed.code, closed.reason], [code, "reason"]);
    assert.deepEqual([client.state, client.server], ["closed", null]);
    client.connect();
    (await server.peer()).hello({ recovered: true });
    await events.until("open");
  });
}

test("a server that vanishes is avoided, and the loss is 1006", async (t) => {
  const { server, peer, events, requests } = await connected(t);
  peer.vanish();
  (await server.peer()).hello({ recovered: true });
  await events.until("open");
  assert.deepEqual([requests[1].avoid, requests[1].lastCode, requests[1].attempt], [server.base, 1006, 1]);
});

test("each refused handshake costs one URL, and the backoff grows through them", async (t) => {
  const server = await serve(t);
  server.refusals.push(503, 401, 403);
  const { client, events, requests } = join(t, server);
  client.connect();
  const peer = await server.peer();
  assert.equal(peer.token, "secret4");
  peer.hello();
  await events.until("open");
  assert.deepEqual(requests.map(({ attempt }) => attempt), [0, 1, 2, 3]);
  assert.equal(requests[1].avoid, server.base);
  assert.equal(server.handshakes, 4);
});

test("the backoff starts over only after a socket that lasted", async (t) => {
  for (const [stableMs, attempts] of [[60_000, [0, 1, 2, 3]], [0, [0, 1, 1, 1]]]) {
    const { server, peer, requests, events } = await connected(t, { backoff: { baseMs: 5, stableMs, random: () => 0 } });
    let current = peer;
    for (let i = 0; i < 3; i += 1) {
      current.close(4000);
      current = await server.peer();
      current.hello({ recovered: true });
      await events.until("open");
    }
    assert.deepEqual(requests.map(({ attempt }) => attempt), attempts);
  }
});

test("a getUrl that throws, answers nonsense or never answers is reported, cut off and asked again", async (t) => {
  const server = await serve(t);
  const signals = [];
  const answers = [
    () => {
      throw new Error("thrown");
    },
    () => Promise.reject(new Error("rejected")),
    () => "http://127.0.0.1/ws?token=secret",
    () => undefined,
    () => new Promise(() => undefined),
    () => server.url(),
  ];
  const { client, events } = join(t, server, {
    getUrlTimeoutMs: 20,
    getUrl: ({ signal }) => {
      signals.push(signal);
      return answers.shift()();
    },
  });
  client.connect();
  (await server.peer()).hello();
  await events.until("open");
  const errors = events.all.filter(([type]) => type === "error").map(([, error]) => error);
  assert.deepEqual(errors.map(({ kind }) => kind), ["get-url", "get-url", "url", "url", "get-url"]);
  assert.deepEqual(errors.slice(0, 2).map(({ cause }) => cause.message), ["thrown", "rejected"]);
  assert.ok(errors.every(({ message }) => !message.includes("secret")));
  assert.match(errors[4].message, /within 20 ms/);
  assert.deepEqual(signals.map(({ aborted }) => aborted), [true, true, true, true, true, false]);
});

test("close() while a URL is asked for aborts the question and opens nothing", async (t) => {
  const server = await serve(t);
  let answer;
  let asked;
  const whenAsked = new Promise((resolve) => {
    asked = resolve;
  });
  const { client, events } = join(t, server, {
    getUrl: ({ signal }) => {
      asked(signal);
      return new Promise((resolve) => {
        answer = resolve;
      });
    },
  });
  client.connect();
  const signal = await whenAsked;
  client.close();
  assert.equal(signal.aborted, true);
  answer(server.url());
  const closed = await events.until("closed");
  assert.deepEqual([closed.code, closed.reason], [1000, "closed by the app"]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(server.handshakes, 0);
  assert.equal(events.count("error"), 0);
});

test("close() at any moment between question, answer and use leaves no socket", async () => {
  const made = [];
  class Socket {
    readyState = 0;

    constructor() {
      made.push(this);
    }

    close() {
      this.readyState = 3;
    }
  }
  const client = new ImClient({ getUrl: () => "ws://127.0.0.1/ws", WebSocket: Socket });
  for (let moment = 0; moment < 20; moment += 1) {
    client.connect();
    for (let turn = 0; turn < moment; turn += 1) {
      await null;
    }
    client.close();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(made.length > 0 && made.length < 20, `${made.length} sockets`);
  assert.ok(made.every(({ readyState }) => readyState === 3));
});

test("close() in getUrl gives up for good", async (t) => {
  const server = await serve(t);
  const { client, events } = join(t, server, {
    getUrl: () => {
      client.close();
      throw new Error("logged out");
    },
  });
  client.connect();
  await events.until("closed");
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([client.state, events.count("error")], ["closed", 0]);
});

test("a handshake that nobody answers, and a socket without a hello, are given up", async (t) => {
  const server = await serve(t);
  server.silent = true;
  const { client, events } = join(t, server, { handshakeTimeoutMs: 40 });
  client.connect();
  assert.match((await events.until("waiting")).reason, /no hello within 40 ms/);
  server.silent = false;
  const mute = await server.peer();
  await mute.closed();
  (await server.peer()).hello();
  await events.until("open");
});

test("a frame before the hello is not taken", async (t) => {
  const server = await serve(t);
  const { client, events } = join(t, server);
  client.connect();
  const early = await server.peer();
  early.msg("m1", "1");
  assert.equal((await early.closed()).code, 4501);
  const good = await server.peer();
  assert.equal(good.since, null);
  good.hello();
  await events.until("open");
  assert.deepEqual(events.ids(), []);
});

test("close() closes with 1000, once told, and connect() resumes", async (t) => {
  const { server, peer, client, events } = await connected(t);
  peer.msg("m1", "1");
  await events.message.take();
  client.close();
  client.close();
  assert.equal((await peer.closed()).code, 1000);
  client.connect();
  const again = await server.peer();
  assert.equal(again.since, "1");
  again.hello({ recovered: true, pos: "1" });
  await events.until("open");
  assert.deepEqual(events.all.filter(([type, e]) => type === "state" && e.state === "closed").length, 1);
});

test("a resume that is not recovered, a close with 4002 and another client's URL tell of a gap, once each", async (t) => {
  const { server, peer, events, client } = await connected(t, {}, { pos: "5" });
  peer.msg("m1", "6");
  peer.close(1012);
  const second = await server.peer();
  assert.equal(second.since, "6");
  second.hello({ pos: "2", recovered: false });
  assert.deepEqual(await events.gap.take(), { reason: "missed" });
  assert.equal(client.position, "2");

  second.close(4002);
  const third = await server.peer();
  assert.equal(events.count("gap"), 1);
  third.hello({ pos: "2", recovered: true });
  assert.deepEqual(await events.gap.take(), { reason: "closed-for-gap" });

  third.close(4002);
  const fourth = await server.peer();
  fourth.hello({ pos: "3", recovered: false });
  assert.deepEqual(await events.gap.take(), { reason: "missed" });

  fourth.close(4000);
  const fifth = await server.peer();
  fifth.hello({ pos: "9", recovered: true, client: "eve" });
  assert.deepEqual(await events.gap.take(), { reason: "client-changed" });
  assert.deepEqual([client.clientId, client.position], ["eve", "9"]);
  fifth.msg("m1", "10");
  await settle(fifth, events);
  assert.deepEqual(events.ids(), ["m1", "m1"]);

  fifth.close(4000);
  const sixth = await server.peer();
  sixth.hello({ pos: "10", recovered: true, client: "eve" });
  await settle(sixth, events);
  assert.equal(events.count("gap"), 4);
  const order = events.all.map(([type]) => type).filter((type) => type === "open" || type === "gap");
  assert.deepEqual(order.slice(1, 3), ["open", "gap"]);
});
