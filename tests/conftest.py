# Fixtures for all tests: real Redis and imserver processes, of which nothing is left when a test ends.
# The log of every process that a failed test used is attached to its report.

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings

from tests.support.imserver import ImServer, Setting
from tests.support.process import Process
from tests.support.redis_cluster import NODES, cluster_options, join_cluster
from tests.support.redis_server import RedisServer

_PROCESSES: pytest.StashKey[list[Process]] = pytest.StashKey()
_LOG_LINES = 60

if settings.get_current_profile_name() == "default":
    # How long an example takes is the machine's affair. (With CI set, Hypothesis has a profile of its own.)
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


class SpawnRedis(Protocol):
    """Starts a Redis of the test's flavour with further command-line options."""

    def __call__(self, *options: str) -> RedisServer: ...


class SpawnImservers(Protocol):
    """Starts `number` imservers and waits until all are ready (or, with `ready=False`, not at all)."""

    def __call__(
        self, number: int, redis_url: str, *, ready: bool = True, files: int | None = None, **settings: Setting
    ) -> list[ImServer]: ...


def _redis_flavours() -> list[str]:
    return [name.strip() for name in os.environ.get("IM_TEST_REDIS", "valkey,redis7").split(",") if name.strip()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.failed:
        for process in item.stash.get(_PROCESSES, []):
            tail = "\n".join(process.output.splitlines()[-_LOG_LINES:])
            report.sections.append((f"output of {process.name}", tail))
    return report


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[Callable[[Process], None]]:
    """Register a process: it is killed at the end of the test, its log is shown if the test fails."""
    registered: list[Process] = []
    request.node.stash[_PROCESSES] = registered
    yield registered.append
    for process in reversed(registered):
        process.dispose()


@pytest.fixture(params=_redis_flavours())
def redis_flavour(request: pytest.FixtureRequest) -> str:
    """`valkey` or `redis7`: each test that uses it runs once for each that IM_TEST_REDIS names (default: both)."""
    flavour: str = request.param
    return flavour


@pytest.fixture
def spawn_redis(redis_flavour: str, tmp_path: Path, processes: Callable[[Process], None]) -> SpawnRedis:
    """A function that starts a Redis of its own, e.g. `spawn_redis("--requirepass", "secret")`."""
    count = 0

    def spawn(*options: str) -> RedisServer:
        nonlocal count
        folder = tmp_path / f"redis{count}"
        folder.mkdir()
        count += 1
        server = RedisServer(redis_flavour, folder, *options)
        processes(server)
        server.start()
        return server

    return spawn


@pytest.fixture
def redis_server(spawn_redis: SpawnRedis) -> RedisServer:
    """A fresh, empty Redis (append-only file, noeviction) for this test alone."""
    return spawn_redis()


@pytest.fixture
def redis_cluster(spawn_redis: SpawnRedis) -> list[RedisServer]:
    """A Redis Cluster of three empty primaries; any one's URL leads to all."""
    nodes = [spawn_redis(*cluster_options()) for _ in range(NODES)]
    join_cluster(nodes)
    return nodes


@pytest.fixture
def spawn_imservers(tmp_path: Path, processes: Callable[[Process], None]) -> SpawnImservers:
    """A function that starts imservers: `spawn_imservers(3, redis_server.url, IM_GRACE_SECONDS=1)`.

    They are called s0, s1, … and go on counting at the next call. It blocks until they are ready; where sockets
    of the test are open meanwhile, call it through `asyncio.to_thread`.
    """
    count = 0

    def spawn(
        number: int, redis_url: str, *, ready: bool = True, files: int | None = None, **settings: Setting
    ) -> list[ImServer]:
        nonlocal count
        started = []
        for _ in range(number):
            server = ImServer(f"s{count}", redis_url, tmp_path, **settings)
            if files is not None:
                server.limit_files(files)
            count += 1
            processes(server)
            server.launch()
            started.append(server)
        if ready:
            for server in started:
                server.wait_ready()
        return started

    return spawn
