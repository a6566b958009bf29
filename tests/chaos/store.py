# The Redis of a run: one server, or a primary with a replica and three Sentinels that fail over.
# It also knows how to lose writes, as a power cut does, and tells what it keeps on disk.

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import redis

from tests.chaos.ledger import now
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.redis_server import RedisServer, redis_binary
from tests.support.waiting import wait_until

__all__ = ["Store"]

DOWN_AFTER_MS = 1500
SAMPLE_SECONDS = 0.25


class Store:
    """Started by `start`; `primary` is the server that takes writes.

    Args:
        folder: where data and logs go; it must exist.
        fsync: `appendfsync`.
        sentinel: a replica and three Sentinels as well.
    """

    def __init__(self, folder: Path, fsync: str, sentinel: bool) -> None:
        self._folder = folder
        self._fsync = fsync
        self.servers = [self._server(0)]
        self.sentinels: list[Process] = []
        self._ports: list[int] = []
        self._sizes: deque[tuple[float, int]] = deque(maxlen=40)
        self._task: asyncio.Task[None] | None = None
        if sentinel:
            self.servers.append(self._server(1, "--replicaof", f"127.0.0.1 {self.servers[0].port}"))
            self._ports = [free_port() for _ in range(3)]
            self.sentinels = [self._sentinel(port) for port in self._ports]

    def _server(self, number: int, *options: str) -> RedisServer:
        folder = self._folder / f"redis{number}"
        folder.mkdir()
        return RedisServer("valkey", folder, "--appendfsync", self._fsync, *options)

    def _sentinel(self, port: int) -> Process:
        settings = self._folder / f"sentinel{port}.conf"
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor chaos 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds chaos {DOWN_AFTER_MS}\nsentinel failover-timeout chaos 8000\n"
        )
        command = [redis_binary("valkey"), str(settings), "--sentinel"]
        return Process(f"sentinel {port}", command, self._folder / f"sentinel{port}.log")

    @property
    def url(self) -> str:
        """What servers and helpers are given as the URL of Redis."""
        if not self.sentinels:
            return self.servers[0].url
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._ports)}/chaos"

    @property
    def primary(self) -> RedisServer:
        """The server that takes writes, as the Sentinels say."""
        if not self.sentinels:
            return self.servers[0]
        with redis.Redis(host="127.0.0.1", port=self._ports[0], socket_timeout=10) as client:
            reply: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "chaos")
        return next(s for s in self.servers if s.port == int(reply[1]))

    def switch(self) -> None:
        """Ask for a failover while the primary is well. Raises redis.ResponseError where that can't be now."""
        with redis.Redis(host="127.0.0.1", port=self._ports[0], socket_timeout=10) as client:
            client.execute_command("SENTINEL", "FAILOVER", "chaos")

    def replicated(self) -> bool:
        """Whether the replica is in step, so that a failover would find it."""
        role: Any = next(s for s in self.servers if s is not self.primary).command("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")

    def start(self) -> None:
        """Start all and wait until they know of each other."""
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.launch()
        if self.sentinels:
            wait_until(self.replicated, 20, "the replica")
            wait_until(self._watched, 30, "three Sentinels that know of each other and of the replica")

    def _watched(self) -> bool:
        return all(s.output.count("+sentinel ") >= 2 and "+slave " in s.output for s in self.sentinels)

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

    def dispose(self) -> None:
        """Leave nothing behind."""
        if self._task is not None:
            self._task.cancel()
        for process in [*self.sentinels, *self.servers]:
            process.thaw()
            process.dispose()
