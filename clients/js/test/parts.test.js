// The parts that decide, each alone: backoff, codes, memory of ids, URLs, options, storage, page events.
// Nothing here opens a socket.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../src/backoff.js";
import { blamesServer, isFinal } from "../src/codes.js";
import { RecentKeys } from "../src/dedupe.js";
import { Emitter } from "../src/emitter.js";
import { ImClient, sessionPosition } from "../src/index.js";
import { PositionStore } from "../src/storage.js";
import { checkUrl, withoutQuery, withSince } from "../src/url.js";
import { watchPage } from "../src/wake.js";

const almostOne = 1 - Number.EPSILON;

test("the cap of the delay doubles with each attempt, up to the maximum, and starts over after a reset", () => {
  const backoff = new Backoff({ baseMs: 100, maxMs: 1000, random: () => almostOne });
  const caps = (count) => Array.from({ length: count }, () => Math.round(backoff.next(4000)));
  assert.deepEqual(caps(6), [100, 200, 400, 800, 1000, 1000]);
  assert.equal(backoff.attempt, 6);
  backoff.reset();
  assert.deepEqual(caps(2), [100, 200]);
});

test("jitter is full: a delay lies anywhere between nothing and the cap", () => {
  const draws = [0, 0.25, 0.5];
  const backoff = new Backoff({ baseMs: 100, maxMs: 1000, random: () => draws.shift() });
  assert.deepEqual([backoff.next(1012), backoff.next(1012), backoff.quick()], [0, 50, 50]);
});

test("an overloaded server spreads its clients wider than one that goes away or was lost", () => {
  const first = (code) => Math.round(new Backoff({ baseMs: 100, maxMs: 1e6, random: () => almostOne }).next(code));
  assert.deepEqual([1012, 4002, 1006, null, 1013].map(first), [100, 100, 200, 200, 1600]);
});

test("thousands of failures do not overflow the delay", () => {
  const backoff = new Backoff({ baseMs: 1, maxMs: 30_000, random: () => almostOne });
  for (let i = 0; i < 5000; i += 1) {
    assert.ok(backoff.next(1006) <= 30_000);
  }
});

test("4500 to 4999 are final and nothing else is", () => {
  const codes = [1000, 1001, 1006, 1012, 1013, 4000, 4499, 4500, 4502, 4999, 5000];
  assert.deepEqual(codes.filter(isFinal), [4500, 4502, 4999]);
});

test("a server is avoided for a loss, not for what it says of one socket", () => {
  assert.deepEqual([1000, 1001, 1006, 1012, 1013, 4000, 4001, 4002].filter(blamesServer), [1001, 1006, 1012, 1013]);
});

test("the memory of ids forgets what was not seen for longest, and only past its size", () => {
  const keys = new RecentKeys(2);
  assert.deepEqual(["a", "b", "a", "c", "a", "b"].map((key) => keys.add(key)), [true, true, false, true, false, true]);
  keys.clear();
  assert.equal(keys.add("a"), true);
});

test("since is appended to a URL with or without a query, and escaped", () => {
  assert.equal(withSince("ws://h/ws?token=t", null), "ws://h/ws?token=t");
  assert.equal(withSince("ws://h/ws?token=t", "1-0&x=1"), "ws://h/ws?token=t&since=1-0%26x%3D1");
  assert.equal(withSince("ws://h/ws", "1"), "ws://h/ws?since=1");
});

test("URLs that are none, not WebSockets', or less safe than the socket in use are refused without showing a token", () => {
  for (const url of [undefined, null, 7, {}, "", "nonsense", "http://h/ws?token=secret", "javascript:secret"]) {
    assert.throws(() => checkUrl(url), (error) => error.kind === "url" && !error.message.includes("secret"));
  }
  assert.throws(() => checkUrl("ws://h/ws?token=secret", "wss://h/ws"), /wss:.*to ws:/);
  assert.equal(checkUrl("wss://h/ws?token=t#part", "ws://h/ws"), "wss://h/ws?token=t");
  assert.equal(withoutQuery("wss://h/a/ws?token=secret&x=?"), "wss://h/a/ws");
});

test("options that are not what they must be are refused by name", () => {
  const good = { getUrl: () => "ws://h/ws", WebSocket: class {} };
  const bad = {
    getUrl: { getUrl: "ws://h" },
    WebSocket: { WebSocket: "ws" },
    ack: { ack: "never" },
    ackDelayMs: { ackDelayMs: -1 },
    dedupeSize: { dedupeSize: 0 },
    handshakeTimeoutMs: { handshakeTimeoutMs: Number.NaN },
    pongTimeoutMs: { pongTimeoutMs: "10" },
    "backoff.maxMs": { backoff: { maxMs: Infinity } },
    "backoff.random": { backoff: { random: 0.5 } },
    "storage.save": { storage: { load: () => null } },
  };
  assert.doesNotThrow(() => new ImClient(good));
  for (const [name, options] of Object.entries(bad)) {
    assert.throws(() => new ImClient({ ...good, ...options }), (error) => error.message.includes(`option ${name}`), name);
  }
  assert.throws(() => new ImClient(), /option getUrl/);
  assert.throws(() => new ImClient(good).on("message", "no function"), /must be a function/);
});

test("listeners are isolated from each other, awaited together, and may leave while an event runs", async () => {
  const failures = [];
  const heard = [];
  const emitter = new Emitter((error, type) => failures.push([type, error.message]));
  const off = emitter.on("x", () => {
    heard.push("first");
    off();
  });
  emitter.on("x", () => {
    throw new Error("thrown");
  });
  emitter.on("x", async () => {
    await null;
    throw new Error("rejected");
  });
  emitter.on("x", (event) => heard.push(event));
  await emitter.emit("x", 1);
  emitter.emit("x", 2);
  assert.deepEqual(heard, ["first", 1, 2]);
  assert.deepEqual(failures.slice(0, 2), [["x", "thrown"], ["x", "rejected"]]);
  assert.equal(emitter.emit("y", 0), null);
});

test("a stored position comes back with its client, and a store that is broken is reported and survived", () => {
  const failures = [];
  let value = null;
  let writes = 0;
  const store = new PositionStore(
    {
      load: () => value,
      save: (text) => {
        value = text;
        writes += 1;
      },
    },
    (error) => failures.push(error.kind),
  );
  assert.equal(store.load(), null);
  store.save("ann", "7-1");
  store.save("ann", "7-1");
  assert.equal(writes, 1);
  assert.deepEqual(store.load(), { client: "ann", pos: "7-1" });
  for (value of ["", "{}", "[1,2]", "null", '["ann"]']) {
    assert.equal(store.load(), null);
  }
  assert.deepEqual(failures, Array(5).fill("storage"));
  const full = new PositionStore(
    {
      load: () => null,
      save: () => {
        throw new Error("quota");
      },
    },
    (error) => failures.push(error.cause.message),
  );
  full.save("ann", "1");
  assert.equal(failures.at(-1), "quota");
});

test("sessionPosition uses the tab's storage under its own key", (t) => {
  const items = new Map();
  globalThis.sessionStorage = {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => items.set(key, value),
  };
  t.after(() => delete globalThis.sessionStorage);
  const storage = sessionPosition("chat");
  assert.equal(storage.load(), null);
  storage.save("x");
  assert.equal(storage.load(), "x");
  assert.deepEqual([...items.keys()], ["chat"]);
});

test("page events wake and hide until nobody watches any more", () => {
  const heard = [];
  const scope = new EventTarget();
  scope.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const stop = watchPage(scope, { wake: () => heard.push("wake"), hide: () => heard.push("hide") });
  const fire = () => {
    for (const type of ["online", "pageshow", "pagehide"]) {
      scope.dispatchEvent(new Event(type));
    }
    scope.document.dispatchEvent(new Event("visibilitychange"));
  };
  fire();
  scope.document.visibilityState = "hidden";
  scope.document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(heard, ["wake", "wake", "hide", "wake", "hide"]);
  stop();
  fire();
  assert.equal(heard.length, 5);
  assert.doesNotThrow(watchPage({}, {}));
});
