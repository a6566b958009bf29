// A socket.io 4 server with the Redis streams adapter, as a peer of imserver in bench/: everyone is in one room and in
// a room of their own. Argument: the Redis URL. Orders as JSON lines on stdin, events as JSON lines on stdout.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const EVERYONE = "bench";
const MOST_AT_ONCE = 256;
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

// The clock is CLOCK_MONOTONIC, the one that the load generator reads.
const payload = (size) => `@ts=${process.hrtime.bigint() / 1000n}@`.padEnd(size, "x");

const redis = createClient({ url: process.argv[2] });
redis.on("error", (error) => console.error(`redis: ${error.message}`));
await redis.connect();

const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(redis),
  connectionStateRecovery: {},
  perMessageDeflate: false,
  serveClient: false,
  transports: ["websocket"],
});
// socket.io's own advice on memory: nobody here asks a socket for the request that opened it.
io.engine.on("connection", (socket) => {
  socket.request = null;
});
io.on("connection", (socket) => {
  socket.join([EVERYONE, socket.handshake.auth.user]);
});

// What is due is sent once in a millisecond; being late, it sends as fast as it can until its patience ends.
function talk({ size, count, rate, users, patience }) {
  const start = performance.now();
  let sent = 0;
  const tick = setInterval(() => {
    const seconds = (performance.now() - start) / 1000;
    const due = Math.min(count, Math.floor(seconds * rate) + 1, sent + MOST_AT_ONCE);
    for (; sent < due; sent++) io.to(`peer-${Math.floor(Math.random() * users)}`).emit("m", payload(size));
    if (sent < count && seconds < patience) return;
    clearInterval(tick);
    say({ event: "sent", sent, seconds });
  }, 1);
}

function shout({ size, count }) {
  for (let sent = 0; sent < count; sent++) io.to(EVERYONE).emit("m", payload(size));
}

const orders = { shout, talk };

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.op](order);
  })
  .on("close", () => process.exit(0));

http.listen(0, "127.0.0.1", () => say({ event: "listening", port: http.address().port }));
