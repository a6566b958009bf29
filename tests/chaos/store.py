# The Redis of a run: what it is for all that use it, and its simplest form, one server.
# That one also knows how to lose writes as a power cut does: it notes how large the append-only file was when.

import asyncio
from collections import deque
from pathlib import Path

from tests.chaos.ledger import now
from tests.support.process import Process
from tests.support.redis_server import RedisServer

__all__ = ["Store"]

SAMPLE_SECONDS = 0.25


class Store:
    """One Redis server; others derive from it. Started by `start`.

    Args:
        folder: where data and logs go; it must exist.
        fsync: `appendfsync`.
    """

    # For a reader of the table.
    kind = "one server"
    # The hash tags of all groups of keys.
    tags: tuple[str, ...] = ("{im:0}",)

    def __init__(self, folder: Path, fsync: str) -> None:
        self._folder = folder
        self._fsync = fsync
        self.servers = [self._server(0)]
        self._sizes: deque[tuple[float, int]] = deque(maxlen=40)
        self._task: asyncio.Task[None] | None = None

    def _server(self, number: int, *options: str) -> RedisServer:
        folder = self._folder / f"redis{number}"
        folder.mkdir()
        return RedisServer("valkey", folder, "--appendfsync", self._fsync, *options)

    @property
    def url(self) -> str:
        """What servers and helpers are given as the URL of Redis."""
        return self.servers[0].url

    def primaries(self) -> list[RedisServer]:
        """The servers that take writes."""
        return self.servers[:1]

    def holder(self, tag: str) -> RedisServer:
        """The server that takes writes to the keys of a hash tag."""
        return self.primaries()[0]

    def start(self) -> None:
        """Start all and wait until they know of each other."""
        for server in self.servers:
            server.start()

    def watch(self) -> None:
        """Begin to note how large the append-only file is; `cut_power` needs it."""
        self._task = asyncio.get_running_loop().create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self._sizes.append((now(), self._file().stat().st_size))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _file(self) -> Path:
        return max((self.servers[0].folder / "appendonlydir").glob("*.incr.aof"))

    def cut_power(self, seconds: float) -> None:
        """kill -9, and lose what was written in the last seconds, as a machine does that had not synced it."""
        self.servers[0].kill()
        before = now() - seconds
        size = next((size for at, size in reversed(self._sizes) if at <= before), None)
        if size is not None:
            with self._file().open("r+b") as file:
                file.truncate(size)

    def _processes(self) -> list[Process]:
        return [*self.servers]

    def dispose(self) -> None:
        """Leave nothing behind."""
        if self._task is not None:
            self._task.cancel()
        for process in self._processes():
            process.thaw()
            process.dispose()
