// The ledger's law, on many random histories: an ack never covers a message whose handler has not finished,
// and once all handlers have finished everything is covered.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ledger } from "../src/ledger.js";

/** A small generator with a seed, so that a history that fails can be run again. */
function numbers(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const limit of [1, 3, 1000]) {
  test(`random histories with ${limit} entries kept apart`, () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const next = numbers(seed);
      const ledger = new Ledger(limit);
      const open = new Map();
      let booked = 0;
      for (let step = 0; step < 60; step += 1) {
        const choice = next(3);
        if (choice === 0 || open.size === 0) {
          booked += 1;
          open.set(booked, ledger.open(String(booked), true));
        } else if (choice === 1) {
          const [key, finish] = [...open][next(open.size)];
          open.delete(key);
          finish();
          finish();
        } else {
          booked += 1;
          ledger.passed(String(booked));
        }
        const unfinished = Math.min(...open.keys());
        assert.ok(Number(ledger.safe) < unfinished, `seed ${seed}, step ${step}`);
      }
      for (const finish of open.values()) {
        finish();
      }
      assert.equal(ledger.safe, String(booked), `seed ${seed}`);
    }
  });
}

test("an ack is due only for messages, and again when the socket that carried it was lost", () => {
  const ledger = new Ledger(10);
  ledger.passed("1");
  ledger.repeat();
  assert.equal(ledger.due, false);
  ledger.open("2", true)();
  assert.equal(ledger.due, true);
  ledger.sent();
  ledger.passed("3");
  assert.equal(ledger.due, false);
  ledger.repeat();
  assert.deepEqual([ledger.due, ledger.safe], [true, "3"]);
});

test("after a rebase no position of the old stream is named, and its unfinished handlers still hold acks back", () => {
  const ledger = new Ledger(10);
  const finishFirst = ledger.open("old-1", true);
  const finishOld = ledger.open("old-2", true);
  ledger.passed("old-3");
  ledger.rebase("new-0");
  ledger.open("new-1", true)();
  finishFirst();
  assert.deepEqual([ledger.safe, ledger.due], [null, false]);
  finishOld();
  assert.deepEqual([ledger.safe, ledger.due], ["new-1", true]);
});
