// Moves: a second socket takes over from the first one without a moment between, and whatever goes wrong on the way.
// Old and new socket may both give the same messages; the app must see each once and in order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ImClient } from "../src/index.js";
import { Queue } from "../support/fake-server.js";
import { connected, serve, settle } from "../support/harness.js";

const SETTLED = { backoff: { baseMs: 20, stableMs: 0, random: () => 0 } };

test("the old socket gives until the new one's hello, then the new one; each message once and in order", async (t) => {
  const { server, peer, client, events, requests } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.msg("m1", "1");
  peer.send({ t: "move", url: other.url(), pos: "2" });
  const next = await other.peer();
  assert.equal(next.since, "2");
  assert.equal(client.state, "moving");
  peer.msg("m3", "3");
  peer.msg("m4", "4");
  await settle(peer, events);
  next.hello({ pos: "2", recovered: true, server: "im-1" });
  for (const [id, pos] of [["m3", "3"], ["m4", "4"], ["m5", "5"]]) {
    next.msg(id, pos);
  }
  await settle(next, events);
  assert.deepEqual(events.ids(), ["m1", "m3", "m4", "m5"]);
  assert.equal((await peer.closed()).code, 1000);
  assert.deepEqual([client.state, client.server], ["open", "im-1"]);
  assert.deepEqual(events.all.filter(([type]) => type === "open").map(([, open]) => open.moved), [false, true]);
  assert.equal(events.count("gap"), 0);
  assert.equal(requests.length, 1);
  assert.equal(server.handshakes, 1);
});

test("nothing of the old socket is taken once the new one has said hello", async (t) => {
  const { peer, events } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.send({ t: "move", url: other.url(), pos: "1" });
  const next = await other.peer();
  next.hello({ pos: "1", recovered: true });
  await events.open.take();
  await events.open.take();
  peer.msg("late", "2");
  await peer.closed();
  next.msg("late", "2");
  next.msg("m3", "3");
  await settle(next, events);
  assert.deepEqual(events.ids(), ["late", "m3"]);
});

test("a move to a dead server falls back to getUrl while the old socket goes on", async (t) => {
  const { server, peer, client, events, requests } = await connected(t, SETTLED);
  const dead = await serve(t);
  const deadUrl = dead.url();
  const deadBase = dead.base;
  await dead.stop();
  peer.send({ t: "move", url: deadUrl, pos: "1" });
  const next = await server.peer();
  assert.equal(client.state, "moving");
  assert.equal(requests[1].avoid, deadBase);
  peer.msg("m2", "2");
  await settle(peer, events);
  next.hello({ pos: "1", recovered: true });
  await peer.closed();
  next.msg("m2", "2");
  await settle(next, events);
  assert.deepEqual(events.ids(), ["m2"]);
  assert.equal(client.state, "open");
});

test("a move to something that is no URL of a server falls back to getUrl", async (t) => {
  for (const url of ["javascript:alert(1)", "http://127.0.0.1/ws?token=secret", "::"]) {
    const { server, peer, events } = await connected(t, SETTLED);
    peer.send({ t: "move", url, pos: "1" });
    const error = await events.error.take();
    assert.equal(error.kind, "url");
    assert.ok(!error.message.includes("secret"));
    (await server.peer()).hello({ pos: "1", recovered: true });
    assert.equal((await peer.closed()).code, 1000);
  }
});

test("a move that falls back blames no server of an earlier loss", async (t) => {
  const { server, peer, events, requests } = await connected(t, SETTLED);
  peer.vanish();
  const second = await server.peer();
  second.hello({ pos: "0", recovered: true });
  await events.until("open");
  second.send({ t: "move", url: "::", pos: "1" });
  (await server.peer()).hello({ pos: "1", recovered: true });
  await second.closed();
  assert.deepEqual(requests.map(({ avoid }) => avoid), [null, server.base, null]);
});

test("a move out of an encrypted socket into the clear is refused", async () => {
  const made = [];
  class Socket {
    readyState = 1;

    constructor(url) {
      this.url = url;
      made.push(this);
    }

    close() {
      this.readyState = 3;
    }

    tell(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
  }
  const opened = new Queue();
  const client = new ImClient({
    WebSocket: function make(url) {
      const socket = new Socket(url);
      opened.put(socket);
      return socket;
    },
    getUrl: () => "wss://im.example/ws?token=t",
    ...SETTLED,
  });
  const errors = [];
  client.on("error", ({ message }) => errors.push(message));
  client.connect();
  const first = await opened.take();
  first.tell({ t: "hello", client: "ann", server: "im-0", pos: "0" });
  first.tell({ t: "move", url: "ws://im.example/ws?token=t2", pos: "1" });
  const second = await opened.take();
  assert.equal(second.url, "wss://im.example/ws?token=t&since=1");
  assert.equal(errors.length, 1);
  client.close();
  assert.deepEqual(made.map(({ readyState }) => readyState), [3, 3]);
});

test("an old socket that dies on the way leaves the new one to carry on", async (t) => {
  const { peer, client, events, requests } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.send({ t: "move", url: other.url(), pos: "1" });
  const next = await other.peer();
  peer.close(1012);
  const { state, code } = await events.until("connecting");
  assert.deepEqual([state, code], ["connecting", 1012]);
  next.hello({ pos: "1", recovered: true });
  await events.until("open");
  assert.equal(requests.length, 1);
  assert.equal(client.state, "open");
});

test("an old socket that counts as one too many leaves the new one; without a new one it is final", async (t) => {
  const { peer, events, client } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.send({ t: "move", url: other.url(), pos: "1" });
  const next = await other.peer();
  peer.close(4502);
  await events.until("connecting");
  next.hello({ pos: "1", recovered: true });
  await events.until("open");
  next.close(4502);
  assert.equal((await events.until("closed")).code, 4502);
  assert.equal(client.state, "closed");
});

test("a business that disconnects ends both sockets, whichever hears of it", async (t) => {
  for (const which of ["old", "new"]) {
    const { peer, events } = await connected(t, SETTLED);
    const other = await serve(t);
    peer.send({ t: "move", url: other.url(), pos: "1" });
    const next = await other.peer();
    (which === "old" ? peer : next).close(4500, "banned");
    assert.equal((await events.until("closed")).code, 4500);
    await peer.closed();
    await next.closed();
  }
});

test("moves while one is under way are ignored", async (t) => {
  const { peer, events, server } = await connected(t, SETTLED);
  const other = await serve(t);
  for (let i = 0; i < 50; i += 1) {
    peer.send({ t: "move", url: other.url(), pos: "1" });
  }
  const next = await other.peer();
  await settle(peer, events);
  next.hello({ pos: "1", recovered: true });
  await peer.closed();
  assert.deepEqual([other.handshakes, server.handshakes], [1, 1]);
});

test("a socket that is moved on before it lasted waits its jittered turn, and keeps the URL it was given", async (t) => {
  const { peer, events, client, requests } = await connected(t, { backoff: { baseMs: 1, random: () => 0.5 } });
  const other = await serve(t);
  peer.send({ t: "move", url: other.url(), pos: "1" });
  const next = await other.peer();
  next.hello({ pos: "1", recovered: true });
  await peer.closed();
  await settle(next, events);
  assert.equal(requests.length, 1);
  assert.equal(client.state, "open");
});

test("a move that is not recovered tells of a gap", async (t) => {
  const { peer, events } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.send({ t: "move", url: other.url(), pos: "1" });
  (await other.peer()).hello({ pos: "7", recovered: false });
  assert.deepEqual(await events.gap.take(), { reason: "missed" });
});

test("acks that were on their way to the old socket are repeated to the new one", async (t) => {
  const { peer, events } = await connected(t, SETTLED);
  const other = await serve(t);
  peer.msg("m1", "1");
  assert.deepEqual(await peer.next("ack"), { t: "ack", pos: "1" });
  peer.send({ t: "move", url: other.url(), pos: "1" });
  const next = await other.peer();
  next.hello({ pos: "1", recovered: true });
  assert.deepEqual(await next.next("ack"), { t: "ack", pos: "1" });
  await settle(next, events);
});
