# Sockets that went leave nothing that only the cycle collector would find: it seldom looks (GC_THRESHOLDS in app.py).
# The server runs in this process, so that its garbage can be looked at; its Redis and its sockets are real.

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from imhelper import ImHelper
from imserver.app import GC_THRESHOLDS, Server
from imserver.settings import load_settings
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.ws import open_socket

PAYLOAD = "x" * 100


@asynccontextmanager
async def serving(redis_url: str) -> AsyncIterator[Server]:
    port = free_port()
    settings = {
        "IM_REDIS_URL": redis_url,
        "IM_SERVER_NAME": "here",
        "IM_URL": f"ws://127.0.0.1:{port}/ws",
        "IM_PORT": str(port),
        "IM_ADMIN_PORT": str(free_port()),
        "IM_TOPOLOGY": "self",
    }
    server = Server(load_settings(settings))
    running = asyncio.create_task(server.run())
    try:
        await eventually(lambda: not server.unready(), 20, what="a server that is ready")
        yield server
    finally:
        server._signalled()
        server._signalled()
        await asyncio.wait_for(running, 20)


@pytest.fixture
def collector():
    """The cycle collector, off and at hand; the server's settings of it end with the test."""
    thresholds = gc.get_threshold()
    gc.disable()
    yield gc
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


async def delivered(server: Server, due: int) -> None:
    await eventually(lambda: server.hub.stats.delivered["message"] == due, what="frames")


async def test_sockets_that_went_leave_no_cycles(redis_server, collector):
    async with serving(redis_server.url) as server, ImHelper(redis_server.url) as im:
        assert collector.get_threshold() == GC_THRESHOLDS
        collector.collect()
        collector.set_debug(gc.DEBUG_SAVEALL)
        for round_ in range(4):
            envelope = bool(round_ % 2)
            async with AsyncExitStack() as stack:
                names = [f"c{n}" for n in range(40)]
                for name in names:
                    url = await im.prev_connect_server(name)
                    await stack.enter_async_context(open_socket(url, envelope=envelope))
                # Who comes back begins with a replay, whose frames are not counted.
                await eventually(lambda: all(s.live for s in server.hub.connected), what="live sockets")
                await im.send_message("s", names, PAYLOAD, receipt=True)
                await delivered(server, len(names) * (round_ + 1))
            await eventually(lambda: not server.hub.connected)
        await eventually(lambda: server.hub.presence.idle)
        collector.collect()
        found = Counter(type(o).__qualname__ for o in gc.garbage if type(o).__module__.startswith("imserver"))
        assert not found, found
