# Thousands of light envelope clients in one process: a handshake, then bytes that are only searched, never parsed.
# For storms, where a library's client would cost more than the server under test.

import asyncio
import random
from collections.abc import Sequence
from urllib.parse import quote

from tests.support.raw import UPGRADE, request
from tests.support.waiting import eventually


class Light(asyncio.Protocol):
    """One client. `done` is set once `until` stands in what came (or the connection ended: `lost`)."""

    def __init__(self, target: str, until: bytes) -> None:
        self._target, self._until = target, until
        self.seen = bytearray()
        self.done = asyncio.Event()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(request(self._target, UPGRADE | {"Sec-WebSocket-Protocol": "imcluster.v1.json"}))

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if self._until in self.seen:
            self.done.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.done.set()

    @property
    def pos(self) -> str:
        """The position of the hello."""
        return self.seen.partition(b'"pos":"')[2].partition(b'"')[0].decode()

    @property
    def status(self) -> int:
        """The HTTP status of the handshake."""
        return int(self.seen.split(b" ", 2)[1])


async def crowd(
    urls: Sequence[str], until: bytes, *, since: Sequence[str | None] = (), at_once: int = 1000, timeout: float = 60
) -> list[Light]:
    """Connect to all URLs, `at_once` at a time, and wait until each has seen `until`."""
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(at_once)

    async def one(url: str, pos: str | None) -> Light:
        async with room:
            host, _, rest = url.removeprefix("ws://").partition("/")
            target = f"/{rest}" + ("" if pos is None else f"&since={quote(pos, safe='')}")
            while True:
                _, client = await loop.create_connection(
                    lambda: Light(target, until), "127.0.0.1", int(host.rpartition(":")[2])
                )
                await client.done.wait()
                if client.status != 503:
                    return client
                # Told to come again; the token is good still.
                await asyncio.sleep(random.uniform(0.5, 1.5))

    async with asyncio.timeout(timeout):
        return await asyncio.gather(*map(one, urls, since or [None] * len(urls)))


async def disperse(clients: Sequence[Light]) -> None:
    """Cut all connections, and wait until they are gone."""
    for client in clients:
        client.transport.abort()
    await eventually(lambda: all(client.lost for client in clients), 20)
