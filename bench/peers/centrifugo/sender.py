"""A lean client of Centrifugo's HTTP API: `python -m bench.peers.centrifugo.sender PORT`, the key in BENCH_API_KEY.

What is due at a moment leaves in one batch request over a connection that stays open, the cheapest way for the API.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import sys
import time
from typing import Any

from bench.cluster import payload
from bench.errors import BenchError

CONNECTIONS = 8
MOST_AT_ONCE = 256
ANSWER_SECONDS = 20
TICK_SECONDS = 0.001
# The node closes connections that were quiet for some seconds; those are opened anew before they are used.
QUIET_SECONDS = 1


class Api:
    """Connections to the API of one node.

    Args:
        port: of the node on 127.0.0.1.
        key: of its API.
    """

    def __init__(self, port: int, key: str) -> None:
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self._used = {
            http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS): 0.0 for _ in range(CONNECTIONS)
        }
        self._free: asyncio.Queue[http.client.HTTPConnection] = asyncio.Queue()
        for connection in self._used:
            self._free.put_nowait(connection)

    def close(self) -> None:
        """Closes all connections."""
        for connection in self._used:
            connection.close()

    async def connection(self) -> http.client.HTTPConnection:
        """A connection that is free, waiting for one if need be; to be given to `publish`."""
        return await self._free.get()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Makes a connection free again that was not used."""
        self._free.put_nowait(connection)

    async def publish(self, connection: http.client.HTTPConnection, channels: list[str], size: int) -> None:
        """Publishes a stamped text of `size` bytes to each of the channels, in one request.

        Raises:
            BenchError: the API refused one of them.
        """
        commands = [{"publish": {"channel": channel, "data": payload(size)}} for channel in channels]
        body = json.dumps({"commands": commands, "parallel": True})
        try:
            answer = await asyncio.to_thread(self._post, connection, body)
        finally:
            self._free.put_nowait(connection)
        if b'"error"' in answer:
            raise BenchError(f"Centrifugo's API answered {answer[:200]!r}")

    def _post(self, connection: http.client.HTTPConnection, body: str) -> bytes:
        if time.monotonic() - self._used[connection] > QUIET_SECONDS:
            connection.close()  # request() opens it again
        connection.request("POST", "/api/batch", body, self._headers)
        response = connection.getresponse()
        answer = response.read()
        self._used[connection] = time.monotonic()
        return answer if response.status == 200 else b'"error": status %d' % response.status


async def talk(api: Api, order: dict[str, Any]) -> dict[str, Any]:
    """1:1 messages at a pace; being late, as fast as the API takes them until the order's patience ends."""
    draw = random.Random(1)
    start = time.monotonic()
    sent = 0
    async with asyncio.TaskGroup() as group:
        while sent < order["count"] and time.monotonic() - start < order["patience"]:
            connection = await api.connection()
            due = int((time.monotonic() - start) * order["rate"]) + 1
            wanted = min(due, order["count"], sent + MOST_AT_ONCE) - sent
            channels = [f"personal:#peer-{draw.randrange(order['users'])}" for _ in range(wanted)]
            if channels:
                group.create_task(api.publish(connection, channels, order["size"]))
                sent += wanted
            else:
                api.give_back(connection)
                await asyncio.sleep(TICK_SECONDS)
    return {"event": "sent", "sent": sent, "seconds": time.monotonic() - start}


async def main(port: int, key: str) -> None:
    """Serves orders until stdin ends."""
    with contextlib.closing(Api(port, key)) as api:
        print(json.dumps({"event": "ready"}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            if order["op"] == "talk":
                done = await talk(api, order)
            else:
                await api.publish(await api.connection(), [order["channel"]] * order["count"], order["size"])
                done = {"event": "sent"}
            print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), os.environ["BENCH_API_KEY"]))
