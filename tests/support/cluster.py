# A Redis with three imservers that many tests share, so that each need not start its own.
# Tests that break something, or need other settings, start their own by the fixtures of tests/conftest.py.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from imhelper import ImHelper
from tests.support.imserver import ImServer, Setting
from tests.support.process import Process
from tests.support.redis_server import RedisServer
from tests.support.ws import Socket, open_socket

SHARED_SETTINGS: dict[str, Setting] = {"IM_GRACE_SECONDS": 3, "IM_MAX_SOCKETS_PER_CLIENT": 3}


class Cluster:
    """Running processes. `start` blocks until all servers are ready."""

    def __init__(self, flavour: str, folder: Path, servers: int = 3) -> None:
        (folder / "redis").mkdir()
        self.redis = RedisServer(flavour, folder / "redis")
        self.servers = [ImServer(f"s{i}", "", folder, **SHARED_SETTINGS) for i in range(servers)]

    @property
    def processes(self) -> list[Process]:
        return [self.redis, *self.servers]

    def start(self) -> None:
        self.redis.start()
        for server in self.servers:
            assert server.env is not None
            server.env["IM_REDIS_URL"] = self.redis.url
            server.launch()
        for server in self.servers:
            server.wait_ready()

    def dispose(self) -> None:
        for process in reversed(self.processes):
            process.dispose()


def new_name(what: str = "c") -> str:
    """A name that no other test uses; it holds what may not break keys, patterns or scripts."""
    return f"{what}:{{*}}'\"é-{uuid4().hex[:12]}"


async def token_for(im: ImHelper, client: str, metadata: str = "") -> str:
    """A fresh token, which works on any server."""
    url = await im.prev_connect_server(client, metadata)
    return url.partition("?token=")[2]


async def url_on(server: ImServer, im: ImHelper, client: str, metadata: str = "") -> str:
    """A URL of one server with a fresh token."""
    return f"{server.url}?token={await token_for(im, client, metadata)}"


@asynccontextmanager
async def connected(
    server: ImServer, im: ImHelper, client: str, *, envelope: bool = False, since: str | None = None, metadata: str = ""
) -> AsyncIterator[Socket]:
    """An open socket of a client on one server. In envelope mode `hello` is still to be read."""
    async with open_socket(await url_on(server, im, client, metadata), envelope=envelope, since=since) as socket:
        yield socket
