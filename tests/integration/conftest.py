# The cluster that tests of the server share: one for each flavour of Redis, started at its first use.
# A failed test shows the last lines of its processes' logs.

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from imhelper import ImHelper
from imhelper._backend.aio import Link
from imhelper.core.redis_url import parse_redis_url
from tests.conftest import _redis_flavours
from tests.support.cluster import Cluster
from tests.support.redis_server import RedisServer

_running: list[Cluster] = []
_LOG_LINES = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.failed and "cluster" in getattr(item, "fixturenames", ()):
        for process in [p for cluster in _running for p in cluster.processes]:
            tail = "\n".join(process.output.splitlines()[-_LOG_LINES:])
            report.sections.append((f"output of {process.name}", tail))
    return report


@pytest.fixture(scope="session", params=_redis_flavours())
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Redis and three imservers, shared: leave them as they are, and use names that are your own."""
    shared = Cluster(request.param, tmp_path_factory.mktemp("cluster"))
    _running.append(shared)
    try:
        shared.start()
        yield shared
    finally:
        _running.remove(shared)
        shared.dispose()


@pytest.fixture
async def im(cluster: Cluster) -> AsyncIterator[ImHelper]:
    """The helper on the shared cluster."""
    async with ImHelper(cluster.redis.url) as helper:
        yield helper


@pytest.fixture
async def link(redis_server: RedisServer) -> AsyncIterator[Link]:
    """A server's way to a Redis of the test's own, for scripts by themselves."""
    made = Link(parse_redis_url(redis_server.url), prefix="im", timeout=5)
    yield made
    await made.close()
