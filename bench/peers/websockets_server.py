"""`websockets`' own asyncio server as a peer: `python -m bench.peers.websockets_server`.

Listens on 127.0.0.1 and says so in a JSON line; a line {"size", "count"} on stdin has that many messages broadcast.
"""

import asyncio
import json
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.cluster import payload


async def _quiet(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def main() -> None:
    """Serves until stdin ends."""
    async with serve(_quiet, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(json.dumps({"event": "listening", "port": port}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            for _ in range(order["count"]):
                broadcast(server.connections, payload(order["size"]))


if __name__ == "__main__":
    uvloop.run(main())
