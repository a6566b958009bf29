# The Redis of a run with Sentinel: a primary, a replica, and three Sentinels that fail over.
# Which server is the primary is what the Sentinels say.

from pathlib import Path
from typing import Any

import redis

from tests.chaos.store import Store
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.redis_server import RedisServer, redis_binary
from tests.support.waiting import wait_until

__all__ = ["SentinelStore"]

DOWN_AFTER_MS = 1500


class SentinelStore(Store):
    """Two servers under three Sentinels."""

    kind = "a primary, a replica and three Sentinels"

    def __init__(self, folder: Path, fsync: str) -> None:
        super().__init__(folder, fsync)
        self.servers.append(self._server(1, "--replicaof", f"127.0.0.1 {self.servers[0].port}"))
        self._ports = [free_port() for _ in range(3)]
        self._sentinels = [self._sentinel(port) for port in self._ports]

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
        """All three Sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._ports)}/chaos"

    @property
    def primary(self) -> RedisServer:
        """The server that takes writes, as the Sentinels say."""
        with redis.Redis(host="127.0.0.1", port=self._ports[0], socket_timeout=10) as client:
            reply: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "chaos")
        return next(s for s in self.servers if s.port == int(reply[1]))

    def primaries(self) -> list[RedisServer]:
        """That one."""
        return [self.primary]

    def switch(self) -> None:
        """Ask for a failover while the primary is well. Raises redis.ResponseError where that can't be now."""
        with redis.Redis(host="127.0.0.1", port=self._ports[0], socket_timeout=10) as client:
            client.execute_command("SENTINEL", "FAILOVER", "chaos")

    def replicated(self) -> bool:
        """Whether the replica is in step, so that a failover would find it."""
        role: Any = next(s for s in self.servers if s is not self.primary).command("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")

    def start(self) -> None:
        """Wait until the Sentinels know of each other and of the replica, too."""
        super().start()
        for sentinel in self._sentinels:
            sentinel.launch()
        wait_until(self.replicated, 20, "the replica")
        wait_until(self._watched, 30, "three Sentinels that know of each other and of the replica")

    def _watched(self) -> bool:
        return all(s.output.count("+sentinel ") >= 2 and "+slave " in s.output for s in self._sentinels)

    def _processes(self) -> list[Process]:
        return [*self._sentinels, *self.servers]
