// Pings and their deadline on a clock that the test holds, with the delays that browsers put on hidden pages' timers.
// Both the timers and the monotonic clock are the test's, so nothing depends on how fast the machine is.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Liveness } from "../src/liveness.js";

function start(t) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const heard = [];
  const liveness = new Liveness({
    periodMs: 25_000,
    timeoutMs: 10_000,
    ping: () => heard.push("ping"),
    dead: () => heard.push("dead"),
    lag: (ms) => heard.push(ms),
  });
  return {
    liveness,
    heard,
    pass(ms, late = 0) {
      now += ms + late;
      t.mock.timers.tick(ms);
    },
  };
}

test("pings each period, measures the round trip, and rests after any frame", (t) => {
  const { liveness, heard, pass } = start(t);
  pass(25_000);
  pass(30);
  liveness.heard();
  liveness.pong();
  pass(24_999);
  assert.deepEqual(heard, ["ping", 30]);
  pass(1);
  liveness.heard();
  pass(25_000);
  assert.deepEqual(heard, ["ping", 30, "ping", "ping"]);
});

test("a ping that nothing answers in time means dead; frames from before the ping do not count", (t) => {
  const { liveness, heard, pass } = start(t);
  liveness.heard();
  pass(25_000);
  pass(9_999);
  assert.deepEqual(heard, ["ping"]);
  pass(1);
  assert.deepEqual(heard, ["ping", "dead"]);
});

test("a deadline that the browser held up gives the answer one more chance, and only one", (t) => {
  const { heard, pass } = start(t);
  pass(25_000);
  pass(10_000, 60_000);
  assert.deepEqual(heard, ["ping", "ping"]);
  pass(10_000, 60_000);
  assert.deepEqual(heard, ["ping", "ping", "dead"]);
});

test("an answer to the second chance earns the next one", (t) => {
  const { liveness, heard, pass } = start(t);
  for (let round = 0; round < 3; round += 1) {
    pass(25_000);
    pass(10_000, 60_000);
    liveness.heard();
  }
  assert.deepEqual(heard, Array(6).fill("ping"));
});

test("a check asks at once, but not while an answer is awaited; a pong nobody asked for is no round trip", (t) => {
  const { liveness, heard, pass } = start(t);
  liveness.pong();
  liveness.check();
  liveness.check();
  pass(9_000);
  liveness.heard();
  pass(24_999);
  assert.deepEqual(heard, ["ping"]);
  liveness.stop();
  pass(100_000);
  assert.deepEqual(heard, ["ping"]);
});
