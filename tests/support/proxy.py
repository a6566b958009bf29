# A TCP proxy before a Redis that can go silent: nothing is closed, nothing comes any more, as behind a dead firewall;
# or late, as when a network that was parted is whole again.
# It runs in the test's own loop; what it is silent about is chosen by a word that a connection has said.

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """`swallows` is the word: of connections that said it nothing passes. `deafens`: their answers don't.

    `holds`: what they say from then on passes once `released` is set, even if they have ended meanwhile. `answered` is
    set when Redis has answered to that.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.swallows: bytes | None = None
        self.deafens: bytes | None = None
        self.holds: bytes | None = None
        self.released = asyncio.Event()
        self.answered = asyncio.Event()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
        said = bytearray()
        tasks = [
            asyncio.create_task(self._pump(reader, outer, said, said)),
            asyncio.create_task(self._pump(inner, writer, said, None)),
        ]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for side in (outer, writer):
            side.transport.abort()
        await asyncio.wait(tasks)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, said: bytearray, note: bytearray | None
    ) -> None:
        """`note` collects what the client says; None for what comes back."""
        silent = False
        try:
            while data := await source.read(65536):
                if note is not None:
                    note += data
                if self.holds is not None and self.holds in said:
                    if note is None and self.released.is_set():
                        self.answered.set()
                    elif note is not None:
                        await self.released.wait()
                        sink.write(data)
                        await self.answered.wait()
                        continue
                silent = silent or (self.swallows is not None and self.swallows in said)
                silent = silent or (note is None and self.deafens is not None and self.deafens in said)
                if not silent:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            return


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A proxy to a loopback port; its connections are cut at the end."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy._tasks:
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
