// What is published: the files in the package, its types, a lock file without hosts, and the README's example at work.
// The example is cut out of the README and run as it stands there.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import * as publicApi from "imcluster-client";
import { Queue } from "../support/fake-server.js";
import { serve } from "../support/harness.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));

test("npm pack takes the sources, the licence and the README, and nothing else", async (t) => {
  const npm = await run("npm", ["--version"]).catch(() => null);
  if (npm === null) {
    t.skip("no npm on this machine");
    return;
  }
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json"], { cwd: root, timeout: 60_000 });
  const [{ name, version, files }] = JSON.parse(stdout);
  assert.deepEqual([name, version], ["imcluster-client", "0.1.0"]);
  const sources = (await readdir(joinPath(root, "src"))).map((file) => `src/${file}`);
  assert.deepEqual(
    files.map(({ path }) => path).sort(),
    ["LICENSE", "README.md", "package.json", ...sources].sort(),
  );
});

test("the types hold against the implementation and against an app's code", async (t) => {
  const tsc = joinPath(root, "node_modules", ".bin", "tsc");
  if (!existsSync(tsc)) {
    t.skip("TypeScript is not installed here (npm ci)");
    return;
  }
  await run(tsc, ["-p", root], { timeout: 120_000 }).catch((error) => assert.fail(error.stdout));
});

test("the lock file names no host", async () => {
  const lock = await readFile(joinPath(root, "package-lock.json"), "utf8");
  assert.doesNotMatch(lock, /"resolved"/);
});

test("the package has no dependencies and exports what its types declare", async () => {
  const { dependencies } = JSON.parse(await readFile(joinPath(root, "package.json"), "utf8"));
  assert.equal(dependencies, undefined);
  const declared = await readFile(joinPath(root, "src", "index.d.ts"), "utf8");
  const names = [...declared.matchAll(/^export (?:class|const|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(publicApi).sort(), names.sort());
});

test("importing the module does nothing: no timer, no global, no socket", async () => {
  const script = `const before = Object.keys(globalThis).join();
    await import("imcluster-client");
    if (Object.keys(globalThis).join() !== before) throw new Error("a global was added");
    if (process.getActiveResourcesInfo().includes("Timeout")) throw new Error("a timer runs");`;
  await run(process.execPath, ["--input-type=module", "--eval", script], { cwd: root, timeout: 20_000 });
});

test("the README's example works as it stands", async (t) => {
  const readme = await readFile(joinPath(root, "README.md"), "utf8");
  const [, example] = /```js\n(.*?)```/s.exec(readme);
  const folder = await mkdtemp(joinPath(tmpdir(), "imcluster-readme-"));
  t.after(() => rm(folder, { recursive: true }));
  const entry = pathToFileURL(joinPath(root, "src", "index.js")).href;
  const file = joinPath(folder, "example.mjs");
  await writeFile(file, example.replace('"imcluster-client"', JSON.stringify(entry)));

  const server = await serve(t);
  const calls = new Queue();
  const answers = [
    () => Response.json({ url: server.url() }),
    () => new Response("", { status: 500 }),
    () => Response.json({ url: server.url() }),
    () => new Response("", { status: 401 }),
  ];
  const items = new Map();
  const page = {
    WebSocket,
    sessionStorage: { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => items.set(key, value) },
    fetch: async (path, { body }) => {
      calls.put(["fetch", path, JSON.parse(body)]);
      return answers.shift()();
    },
    showMessage: async (...message) => calls.put(["message", ...message]),
    showReceipt: (...receipt) => calls.put(["receipt", ...receipt]),
    reloadFromBackend: () => calls.put(["gap"]),
    showState: (state) => calls.put(["state", state]),
  };
  const had = Object.fromEntries(Object.keys(page).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]));
  for (const [name, value] of Object.entries(page)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  t.after(() => {
    for (const [name, descriptor] of Object.entries(had)) {
      delete globalThis[name];
      if (descriptor !== undefined) {
        Object.defineProperty(globalThis, name, descriptor);
      }
    }
  });
  t.mock.method(Math, "random", () => 0);
  const warned = t.mock.method(console, "warn", () => undefined);
  const expect = async (...call) => assert.deepEqual(await calls.take(String(call)), call);

  await import(pathToFileURL(file).href);
  await expect("state", "connecting");
  await expect("fetch", "/im-url", { avoid: null });
  const peer = await server.peer();
  peer.hello();
  await expect("state", "open");
  peer.msg("m1", "1", { chan: "room", data: { text: "hi" } });
  await expect("message", "m1", "bob", "room", { text: "hi" });
  assert.deepEqual(await peer.next("ack"), { t: "ack", pos: "1" });
  assert.deepEqual([...items], [["imcluster.position", '["ann","1"]']]);
  peer.send({ t: "receipt", id: "m0", to: "bob", status: "delivered", pos: "2" });
  await expect("receipt", "m0", "bob", "delivered");

  peer.vanish();
  await expect("state", "waiting");
  await expect("state", "connecting");
  await expect("fetch", "/im-url", { avoid: server.base });
  await expect("state", "waiting");
  await expect("state", "connecting");
  await expect("fetch", "/im-url", { avoid: server.base });
  const next = await server.peer();
  assert.equal(next.since, "2");
  next.hello({ pos: "9", recovered: false });
  await expect("gap");
  await expect("state", "open");
  next.vanish();
  await expect("state", "waiting");
  await expect("state", "connecting");
  await expect("fetch", "/im-url", { avoid: server.base });
  await expect("state", "closed");
  assert.equal(warned.mock.callCount(), 1);
});
