"""A cluster to measure: an embedded Valkey, imserver processes and a helper, on loopback ports that the OS picks.

IM_* variables of the caller's environment reach the servers, so that other settings can be measured.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bench.flame import recorder
from bench.natives import SOCKETS_A_PROCESS, Floor, Loadgen
from bench.procs import Child
from bench.valkey import Valkey
from imhelper import ImError, ImHelper

Item = TypeVar("Item")
Result = TypeVar("Result")

PREFIX = "bench"
READY_SECONDS = 20
# Minted URLs wait in a file until loadgen's turn comes; the default of 10 s is made for browsers.
TOKEN_SECONDS = 600
PARALLEL = 64


def free_ports(count: int) -> list[int]:
    """Ports that are free on every address of this machine at this moment: imserver listens on all of them."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


async def in_parallel(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int = PARALLEL
) -> list[Result]:
    """Awaits `work` for each item, `limit` at a time; results in the order of the items. The first error is raised."""
    waiting = iter(enumerate(items))
    results: dict[int, Result] = {}

    async def worker() -> None:
        for index, item in waiting:
            results[index] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None
    return [results[index] for index in sorted(results)]


def payload(size: int, mark: str = "ts") -> str:
    """A text of `size` bytes that starts with the stamp that loadgen measures latency from; "tc" keeps it apart."""
    return f"@{mark}={time.monotonic_ns() // 1000}@".ljust(size, "x")


class Cluster:
    """Valkey, `servers` imservers, a helper, a load generator; a floor with a load generator of its own.

    Args:
        servers: how many imservers.
        settings: IM_* variables of theirs that this work needs, over those of the caller's environment.
    """

    def __init__(self, servers: int = 1, settings: Mapping[str, str] | None = None) -> None:
        self._count = servers
        self._settings = dict(settings or {})
        self._stack = AsyncExitStack()
        self.redis_url = ""
        self.redis_port = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imcluster-bench-")))
            self.redis_port, *ports = free_ports(1 + 2 * self._count)
            self.valkey = await stack.enter_async_context(Valkey(self.folder, self.redis_port))
            self.redis_url = self.valkey.url
            self.servers = [
                await stack.enter_async_context(self._imserver(index, *ports[2 * index : 2 * index + 2]))
                for index in range(self._count)
            ]
            self.helper = await stack.enter_async_context(
                ImHelper(self.redis_url, prefix=PREFIX, token_ttl=TOKEN_SECONDS)
            )
            await in_parallel(self._ready, list(zip(self.servers, ports[1::2], strict=True)))
            await self._table_in_force()
            # Entered last, so that their sockets are gone before a server is asked to stop and would drain them.
            self.loadgen = await stack.enter_async_context(Loadgen(self.folder, "loadgen", 1))
            self.floor = await stack.enter_async_context(Floor(self.folder))
            self.floor_loadgen = await stack.enter_async_context(Loadgen(self.folder, "floor-loadgen", 101))
            for server in self.servers:
                await server.sample()
            if recording := recorder():
                await recording.redis_begins(self.redis_url)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._stack:
            if error is None and (recording := recorder()):
                await recording.redis_ends(self.redis_url)

    def _imserver(self, index: int, port: int, admin_port: int) -> Child:
        name = f"bench-{index}"
        environment = os.environ | {
            "IM_REDIS_URL": self.redis_url,
            "IM_PREFIX": PREFIX,
            "IM_SERVER_NAME": name,
            "IM_URL": f"ws://127.0.0.1:{port}/ws",
            "IM_PORT": str(port),
            "IM_ADMIN_PORT": str(admin_port),
            "IM_MAX_CONNECTIONS": str(SOCKETS_A_PROCESS),
            "IM_TOPOLOGY": "self",
        }
        environment |= self._settings
        return Child(name, [sys.executable, "-m", "imserver"], self.folder / f"{name}.log", environment)

    async def _ready(self, server_and_admin_port: tuple[Child, int]) -> None:
        server, port = server_and_admin_port
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            server.check_alive()
            if await http_status(port, "/readyz") == 200:
                return
            await asyncio.sleep(0.05)
        raise server.fail(f"was not ready within {READY_SECONDS} s")

    async def _table_in_force(self) -> None:
        """Waits until the servers' own table names all of them, so that clients spread as they will stay."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                if len((await self.helper.topology()).servers) == self._count:
                    return
                why = "the table does not name every server"
            except ImError as error:
                why = str(error)
            if time.monotonic() > deadline:
                raise self.servers[0].fail(f"and the others published no whole table within {READY_SECONDS} s: {why}")
            await asyncio.sleep(0.1)

    async def mint(self, client_ids: Iterable[str]) -> list[str]:
        """One URL a client, in the order of the clients."""
        return await in_parallel(self.helper.prev_connect_server, client_ids)


async def http_status(port: int, path: str) -> int | None:
    """The status of a GET on a loopback port, or None while nobody answers."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                status = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return int(status[1]) if len(status) > 1 else None
