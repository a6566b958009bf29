// What the app gets and what the server is told of it: payloads, de-duplication, acks, receipts, the stored position.
// An ack is only ever sent for messages whose handlers have finished; that is tried from every side here.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, join, serve, settle } from "../support/harness.js";

/** A promise and its settling. */
function deferred() {
  let resolve;
  let reject;
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

test("payloads arrive as they were sent: JSON, text and bytes", async (t) => {
  const { peer, events } = await connected(t);
  const payloads = [{ a: [1, null] }, "text \u{1F600}", 0, false, null, ""];
  payloads.forEach((data, index) => peer.msg(`m${index}`, String(index), { data, chan: "room" }));
  peer.msg("bytes", "b", { data: "AP+A", b64: true });
  peer.msg("direct", "d", { data: "AP+A" });
  for (const data of payloads) {
    const message = await events.message.take();
    assert.deepEqual([message.data, message.from, message.chan], [data, "bob", "room"]);
  }
  assert.deepEqual((await events.message.take()).data, new Uint8Array([0, 255, 128]));
  const direct = await events.message.take();
  assert.deepEqual([direct.data, direct.chan, direct.id, direct.pos], ["AP+A", null, "direct", "d"]);
});

test("a message id is given once, whatever socket repeats it, and the memory of ids is bounded", async (t) => {
  const { server, peer, events } = await connected(t, { dedupeSize: 3 });
  peer.msg("m1", "1");
  peer.msg("m1", "1");
  peer.msg("m2", "2");
  peer.close(4000);
  const second = await server.peer();
  second.hello({ pos: "2", recovered: true });
  for (const id of ["m1", "m2", "m3", "m4", "m1"]) {
    second.msg(id, id);
  }
  await settle(second, events);
  assert.deepEqual(events.ids(), ["m1", "m2", "m3", "m4", "m1"]);
});

test("a duplicate does not take the position back", async (t) => {
  const { server, peer, events, client } = await connected(t);
  peer.msg("m1", "1");
  peer.msg("m2", "2");
  peer.msg("m1", "1");
  await events.message.take();
  await events.message.take();
  peer.close(4000);
  assert.equal((await server.peer()).since, "2");
  assert.equal(client.position, "2");
});

test("receipts are told once for each message and receiver", async (t) => {
  const { peer, events } = await connected(t);
  const receipt = (id, to, status = "delivered") => peer.send({ t: "receipt", id, to, status, pos: `${id}${to}` });
  receipt("m1", "bob");
  receipt("m1", "eve", "offline");
  receipt("m1", "bob", "offline");
  receipt("m2", "bob");
  await settle(peer, events);
  const told = events.all.filter(([type, { to }]) => type === "receipt" && to !== "nobody");
  assert.deepEqual(
    told.map(([, { id, to, status }]) => [id, to, status]),
    [["m1", "bob", "delivered"], ["m1", "eve", "offline"], ["m2", "bob", "delivered"]],
  );
});

test("acks are gathered: many messages, one ack of the last", async (t) => {
  const { peer } = await connected(t, { ackDelayMs: 60 });
  for (let i = 1; i <= 200; i += 1) {
    peer.msg(`m${i}`, String(i));
  }
  let last = await peer.next("ack");
  let acks = 1;
  while (last.pos !== "200") {
    last = await peer.next("ack");
    acks += 1;
  }
  assert.ok(acks < 100, `${acks} acks for 200 messages`);
});

test("nothing is acked without a message, and nothing twice", async (t) => {
  const { peer, events } = await connected(t, { ackDelayMs: 0 });
  peer.send({ t: "pong", pos: "1" });
  await settle(peer, events);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
  peer.msg("m1", "2");
  assert.equal((await peer.next()).pos, "2");
  await settle(peer, events);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
});

test("an ack waits for the promise of every listener, and for those of all messages before", async (t) => {
  const { peer, client, events } = await connected(t, { ackDelayMs: 0 });
  const work = { m1: deferred(), m2: deferred(), m3: deferred() };
  client.on("message", ({ id }) => work[id].promise);
  client.on("message", () => "at once");
  for (const id of ["m1", "m2", "m3"]) {
    peer.msg(id, id);
  }
  await settle(peer, events);
  work.m2.resolve();
  work.m3.resolve();
  await settle(peer, events);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
  work.m1.resolve();
  const ack = await peer.next("ack");
  assert.ok(ack.pos.startsWith("settled") || ack.pos === "m3", ack.pos);
});

test("an ack goes as far as the handlers have come", async (t) => {
  const { peer, client } = await connected(t, { ackDelayMs: 0 });
  const last = deferred();
  client.on("message", ({ id }) => (id === "m3" ? last.promise : undefined));
  peer.msg("m1", "1");
  peer.msg("m2", "2");
  peer.msg("m3", "3");
  let ack = await peer.next("ack");
  while (ack.pos !== "2") {
    ack = await peer.next("ack");
  }
  peer.msg("m4", "4");
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
  last.resolve();
  assert.equal((await peer.next("ack")).pos, "4");
});

test("manual mode acks what the app acked, as far as it is contiguous", async (t) => {
  const { peer, events } = await connected(t, { ack: "manual", ackDelayMs: 0 });
  for (const pos of ["1", "2", "3"]) {
    peer.msg(`m${pos}`, pos);
  }
  const [first, second, third] = [await events.message.take(), await events.message.take(), await events.message.take()];
  third.ack();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
  first.ack();
  first.ack();
  assert.equal((await peer.next("ack")).pos, "1");
  second.ack();
  assert.equal((await peer.next("ack")).pos, "3");
});

test("thousands of messages that are never acked cost a bounded book, and are acked when they are", async (t) => {
  const { peer, events } = await connected(t, { ack: "manual", ackDelayMs: 0 });
  const count = 3_000;
  for (let i = 1; i <= count; i += 1) {
    peer.msg(`m${i}`, String(i));
  }
  const messages = [];
  while (messages.length < count) {
    messages.push(await events.message.take());
  }
  messages.slice(1).forEach((message) => message.ack());
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(peer.waiting, 0);
  messages[0].ack();
  assert.equal((await peer.next("ack")).pos, String(count));
});

test("a handler that is at work while the socket changes is acked on the new one, and only then", async (t) => {
  const { server, peer, client } = await connected(t, { ackDelayMs: 0 });
  const work = deferred();
  client.on("message", () => work.promise);
  peer.msg("m1", "1");
  peer.close(4000);
  const next = await server.peer();
  assert.equal(next.since, "0", "a server takes `since` for an ack");
  next.hello({ pos: "0", recovered: true });
  next.msg("m1", "1");
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(next.waiting, 0);
  work.resolve();
  assert.equal((await next.next("ack")).pos, "1");
});

/** Waits until so many messages more have been given to the app. */
async function taken(events, count) {
  for (let n = 0; n < count; n += 1) {
    await events.message.take();
  }
}

test("a socket resumes before what the app has not acked, and what comes again moves nothing", async (t) => {
  const { server, peer, client, events } = await connected(t, { ack: "manual", ackDelayMs: 0 });
  const messages = [];
  client.on("message", (message) => messages.push(message));
  for (const n of [1, 2, 3]) {
    peer.msg(`m${n}`, String(n));
  }
  await taken(events, 3);
  messages[0].ack();
  assert.equal((await peer.next("ack")).pos, "1");
  messages[2].ack();
  peer.close(4000);
  const next = await server.peer();
  assert.equal(next.since, "1");
  next.hello({ pos: "1", recovered: true });
  assert.equal((await next.next("ack")).pos, "1");
  next.msg("m2", "2");
  next.send({ t: "pong", pos: "2" }); // of a socket that still replays: behind m3, which was taken
  next.msg("m3", "3");
  next.msg("m4", "4");
  await taken(events, 1);
  assert.deepEqual(events.ids(), ["m1", "m2", "m3", "m4"]);
  messages[1].ack();
  assert.equal((await next.next("ack")).pos, "3");
  messages[3].ack();
  assert.equal((await next.next("ack")).pos, "4");
  next.close(4000);
  assert.equal((await server.peer()).since, "4");
});

test("a handler that works for too long does not make its client miss anything", async (t) => {
  const { server, peer, client, events } = await connected(t, { ack: "manual" });
  peer.msg("m1", "1");
  await taken(events, 1);
  const now = Date.now();
  t.mock.method(Date, "now", () => now + 31_000);
  peer.close(4000);
  assert.equal((await server.peer()).since, "1");
  assert.equal(client.position, "1");
});

test("what a socket may give again never exceeds the ids that are remembered", async (t) => {
  const { server, peer, events } = await connected(t, { ack: "manual", dedupeSize: 3 });
  for (const n of [1, 2, 3]) {
    peer.msg(`m${n}`, String(n));
  }
  await taken(events, 3);
  peer.close(4000);
  assert.equal((await server.peer()).since, "3");
});

test("with a handler of a stream that is gone at work, a socket resumes where the new stream began", async (t) => {
  const { server, peer, events } = await connected(t, { ack: "manual" });
  peer.msg("m1", "old-1");
  peer.close(4002);
  const next = await server.peer();
  next.hello({ pos: "new-0", recovered: false });
  await events.gap.take();
  next.msg("m2", "new-1");
  await settle(next, events);
  next.close(4000);
  assert.equal((await server.peer()).since, "new-0");
});

test("positions of a stream that is gone are never acked", async (t) => {
  const { server, peer, client, events } = await connected(t, { ackDelayMs: 0 });
  const work = deferred();
  client.on("message", ({ id }) => (id === "m1" ? work.promise : undefined));
  peer.msg("m1", "old-1");
  peer.close(4002);
  const next = await server.peer();
  next.hello({ pos: "new-0", recovered: false });
  await events.gap.take();
  work.resolve();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(next.waiting, 0);
  next.msg("m2", "new-1");
  assert.equal((await next.next("ack")).pos, "new-1");
});

test("listeners that fail are reported, break nothing, and their messages count as done", async (t) => {
  const { peer, client, events } = await connected(t, { ackDelayMs: 0 });
  const seen = [];
  client.on("message", () => {
    throw new Error("thrown");
  });
  client.on("message", async () => {
    throw new Error("rejected");
  });
  client.on("message", ({ id }) => seen.push(id));
  client.on("state", () => {
    throw new Error("in state");
  });
  peer.msg("m1", "1");
  assert.equal((await peer.next("ack")).pos, "1");
  const errors = [await events.error.take(), await events.error.take()];
  assert.deepEqual(errors.map(({ kind, cause }) => [kind, cause.message]), [["listener", "thrown"], ["listener", "rejected"]]);
  assert.deepEqual(seen, ["m1"]);
  peer.close(4500);
  await events.until("closed");
});

test("a failure that no error listener can hear of is printed", async (t) => {
  const printed = t.mock.method(console, "error", () => undefined);
  const { peer, client, events } = await connected(t);
  client.on("error", () => {
    throw new Error("the last resort failed");
  });
  client.on("message", () => {
    throw new Error("thrown");
  });
  peer.msg("m1", "1");
  await settle(peer, events);
  assert.deepEqual(printed.mock.calls.map(({ arguments: [, cause] }) => cause.message), ["the last resort failed"]);
});

test("close() in a listener is the end: no further message, no ack of the one at hand, no timer", async (t) => {
  const { peer, client, events } = await connected(t, { ackDelayMs: 0 });
  client.on("message", () => client.close());
  peer.msg("m1", "1");
  peer.msg("m2", "2");
  await peer.closed();
  assert.deepEqual(events.ids(), ["m1"]);
  assert.equal(peer.waiting, 0);
});

test("the stored position is one whose handlers have finished, and a new page resumes from it", async (t) => {
  let value = null;
  const storage = {
    load: () => value,
    save: (text) => {
      value = text;
    },
  };
  const server = await serve(t);
  const before = join(t, server, { storage, ackDelayMs: 0 });
  const work = deferred();
  before.client.on("message", ({ id }) => (id === "m2" ? work.promise : undefined));
  before.client.connect();
  const peer = await server.peer();
  peer.hello({ pos: "0" });
  peer.msg("m1", "1");
  peer.msg("m2", "2");
  await settle(peer, before.events);
  before.client.close();
  work.resolve();

  const after = join(t, server, { storage });
  after.client.connect();
  const next = await server.peer();
  assert.equal(next.since, "1");
  next.hello({ pos: "1", recovered: true });
  next.msg("m2", "2");
  await settle(next, after.events);
  assert.deepEqual(after.events.ids(), ["m2"]);
  assert.equal(after.events.count("gap"), 0);
  after.client.close();

  const stranger = join(t, server, { storage });
  stranger.client.connect();
  (await server.peer()).hello({ client: "eve", pos: "9", recovered: true });
  assert.deepEqual(await stranger.events.gap.take(), { reason: "client-changed" });
});
