"""`websockets`' own asyncio server, the library's plain broadcast to all its connections, on uvloop as ours.

It has no Redis, no users and no channels: it shows what a connection and a frame cost in Python without them.
"""

import json
import sys
from contextlib import AsyncExitStack

from bench.peers.base import Peer
from bench.procs import Speaker


class Websockets(Peer):
    """One process; every socket gets every message."""

    name = "websockets"
    mode = "plain"

    @classmethod
    def prepare(cls, *, build: bool) -> str | None:
        """It comes with imserver's own requirements."""
        return None

    async def start(self, stack: AsyncExitStack) -> None:
        """Starts the server."""
        command = [sys.executable, "-m", "bench.peers.websockets_server"]
        self._server = await stack.enter_async_context(Speaker("websockets", command, self.folder / "websockets.log"))
        self._port = int((await self._server.hear("listening"))["port"])
        self.servers = [self._server]

    def mint(self, first: int, count: int) -> list[str]:
        """URLs that differ in nothing that the server looks at."""
        return [f"ws://127.0.0.1:{self._port}/ws?token={index:032x}" for index in range(first, first + count)]

    async def shout(self, size: int, count: int) -> None:
        """`broadcast`, `count` times in a row."""
        await self._server.tell(json.dumps({"size": size, "count": count}))
