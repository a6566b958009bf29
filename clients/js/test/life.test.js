// Long and bad lives: half-open sockets, pages that sleep and wake, thousands of reconnects, a process that must end.
// What must not stay behind is counted: timers, sockets, WebSocket objects.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { WebSocket } from "ws";
import { ImClient } from "../src/index.js";
import { connected, join, serve, settle } from "../support/harness.js";

const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

test("pings as often as the hello says, and tells the round trip", async (t) => {
  const { peer, client, events } = await connected(t, {}, { ping: 1 });
  assert.equal(client.lag, null);
  assert.deepEqual(await peer.next(), { t: "ping" });
  peer.send({ t: "pong", pos: "7" });
  const { ms } = await events.lag.take();
  assert.ok(ms >= 0);
  assert.deepEqual([client.lag, client.position], [ms, "7"]);
  assert.deepEqual(await peer.next(), { t: "ping" });
});

test("a half-open socket is given up after an unanswered ping, and its server avoided", async (t) => {
  const { server, peer, events, requests } = await connected(t, { pongTimeoutMs: 50 }, { ping: 1 });
  const waiting = await events.until("waiting");
  assert.deepEqual([waiting.code, waiting.reason], [1006, "no answer to a ping"]);
  assert.deepEqual(await peer.next(), { t: "ping" });
  assert.equal((await peer.closed()).code, 4000);
  (await server.peer()).hello({ recovered: true });
  await events.until("open");
  assert.equal(requests[1].avoid, server.base);
});

test("any frame after a ping keeps the socket, for longer than its handshake might have taken", async (t) => {
  const { server, peer, client, events } = await connected(t, { pongTimeoutMs: 700, handshakeTimeoutMs: 1_500 }, { ping: 1 });
  await peer.next("ping");
  peer.send({ t: "something new" });
  await peer.next("ping");
  await settle(peer, events);
  assert.equal(client.state, "open");
  assert.equal(server.handshakes, 1);
});

/** Gives Node's global object the events of a page. */
function page(t) {
  const target = new EventTarget();
  const listeners = new Set();
  globalThis.addEventListener = (type, listener) => {
    listeners.add(listener);
    target.addEventListener(type, listener);
  };
  globalThis.removeEventListener = (type, listener) => {
    listeners.delete(listener);
    target.removeEventListener(type, listener);
  };
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  return { fire: (type) => target.dispatchEvent(new Event(type)), listeners };
}

test("the network's return cuts a long wait short; close() stops listening to the page", async (t) => {
  const { fire, listeners } = page(t);
  const draws = [1, 0];
  const backoff = { baseMs: 600_000, maxMs: 600_000, random: () => draws.shift() };
  const { server, peer, client, events } = await connected(t, { backoff });
  peer.vanish();
  assert.equal((await events.until("waiting")).retryInMs > 100_000, true);
  fire("online");
  (await server.peer()).hello({ recovered: true });
  await events.until("open");
  assert.equal(listeners.size > 0, true);
  client.close();
  assert.equal(listeners.size, 0);
});

test("a page that wakes asks at once whether its socket is still alive", async (t) => {
  const { fire } = page(t);
  const { peer } = await connected(t, {}, { ping: 3600 });
  fire("pageshow");
  assert.deepEqual(await peer.next(), { t: "ping" });
});

test("a page that goes sends the ack that is due and stores its position", async (t) => {
  const { fire } = page(t);
  const stored = [];
  const storage = { load: () => null, save: (value) => stored.push(value) };
  const { peer, events } = await connected(t, { storage, ackDelayMs: 600_000 });
  peer.msg("m1", "1");
  await events.message.take();
  fire("pagehide");
  assert.deepEqual(await peer.next(), { t: "ack", pos: "1" });
  assert.deepEqual(stored, ['["ann","1"]']);
});

test("a thousand reconnects leave one socket and no timers behind", async (t) => {
  const made = [];
  class Counted extends WebSocket {
    constructor(...rest) {
      super(...rest);
      made.push(new WeakRef(this));
    }
  }
  const server = await serve(t);
  const before = timers();
  const { client, events } = join(t, server, { WebSocket: Counted, backoff: { baseMs: 1, maxMs: 1, random: () => 0 } });
  client.connect();
  const rounds = 1_000;
  for (let i = 0; i < rounds; i += 1) {
    const peer = await server.peer();
    peer.hello({ recovered: i > 0, pos: "0" });
    peer.msg(`m${i}`, String(i));
    if (i % 3 === 0) {
      peer.send({ t: "move", url: server.url(), pos: String(i) });
    } else if (i % 3 === 1) {
      peer.vanish();
    } else {
      peer.close(4000);
    }
    if (i === rounds - 1) {
      await events.until("open");
    }
  }
  const last = await server.peer();
  last.hello({ recovered: true });
  await settle(last, events);
  assert.equal(events.count("message"), rounds);
  client.close();
  await last.closed();
  setFlagsFromString("--expose_gc");
  const collect = runInNewContext("gc");
  const alive = () => made.filter((reference) => reference.deref() !== undefined).length;
  for (let i = 0; i < 50 && (alive() > 20 || timers() > before); i += 1) {
    await tick(20);
    collect();
  }
  assert.ok(made.length > rounds);
  assert.ok(alive() <= 20, `${alive()} WebSockets of ${made.length} are still held`);
  assert.ok(timers() <= before, `${timers() - before} timers stayed behind`);
});

test("a handler that finishes after close() sets no timer", async (t) => {
  let finish;
  const { peer, client, events } = await connected(t, { ackDelayMs: 600_000 });
  client.on("message", () => new Promise((resolve) => {
    finish = resolve;
  }));
  peer.msg("m1", "1");
  await events.message.take();
  client.close();
  await peer.closed();
  const set = t.mock.method(globalThis, "setTimeout");
  finish();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(set.mock.calls.filter(({ arguments: [, delay] }) => delay === 600_000), []);
});

test("a process whose client is closed ends by itself, whatever the client was doing", async (t) => {
  const server = await serve(t);
  const source = (getUrl, after) => `
    import { WebSocket } from "ws";
    import { ImClient } from "imcluster-client";
    const client = new ImClient({ WebSocket, getUrl: ${getUrl}, backoff: { baseMs: 60000, random: () => 0.9 } });
    ${after}
    client.connect();`;
  const scripts = [
    source(`() => new Promise(() => undefined)`, `setTimeout(() => client.close(), 50);`),
    source(`() => { throw new Error("no"); }`, `client.on("state", ({ state }) => state === "waiting" && client.close());`),
    source(`() => ${JSON.stringify(server.url())}`, `client.on("open", () => client.close());`),
    source(`() => ${JSON.stringify(server.url())}`, `client.on("state", () => undefined);`),
  ];
  for (const [index, script] of scripts.entries()) {
    const run = promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: new URL("..", import.meta.url),
      timeout: 20_000,
    });
    if (index >= 2) {
      const peer = await server.peer();
      peer.hello();
      if (index === 3) {
        peer.close(4500);
      }
    }
    assert.equal((await run).stderr, "");
  }
});

test("clients do not share anything", async (t) => {
  const first = await connected(t);
  const second = await connected(t);
  first.peer.msg("m1", "1");
  second.peer.msg("m1", "9");
  await settle(first.peer, first.events);
  await settle(second.peer, second.events);
  assert.deepEqual([first.events.ids(), second.events.ids()], [["m1"], ["m1"]]);
  first.client.close();
  assert.equal(second.client.state, "open");
  assert.ok(second.client instanceof ImClient);
});
