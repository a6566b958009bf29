# SIGTERM in bad company: Redis is away, clients are deaf, clocks jump. The process ends all the same, and only then.
# What a drain does with clients that listen is in test_server_drain.py.

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from imhelper import ImHelper
from tests.support.cluster import connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
# Wall clocks of the process that imports it: an hour ahead, an hour behind, in turn, two seconds each.
_JUMPY = """
import time
_real, _monotonic = time.time, time.monotonic
time.time = lambda: _real() + (3600 if int(_monotonic()) % 4 < 2 else -3600)
time.time_ns = lambda: int(time.time() * 1e9)
"""


async def test_a_second_sigterm_ends_a_server_at_once_though_redis_is_away(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_DRAIN_TIMEOUT_SECONDS=3600)
    async with ImHelper(redis_server.url) as im, connected(server, im, "deaf", envelope=True) as deaf:
        await deaf.recv_kind("hello")
        redis_server.freeze()
        server.terminate()
        await eventually(lambda: server.metrics()["imserver_draining"] == 1)
        server.terminate()
        assert (await deaf.closed(20))[0] == 1012
        assert await server.wait_async(20) == 0
        redis_server.thaw()


async def test_a_server_leaves_as_soon_as_it_is_empty_and_sends_away_one_after_the_other(redis_server, spawn_imservers):
    old, new = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, IM_DRAIN_RATE=20, IM_DRAIN_TIMEOUT_SECONDS=3600
    )
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(old, im, f"c{n}", envelope=True)) for n in range(12)]
        for socket in sockets:
            await socket.recv_kind("hello")
        old.terminate()
        await sockets[0].recv_kind("move")
        moved = 1

        async def follow(socket) -> None:
            nonlocal moved
            if socket is not sockets[0]:
                await socket.recv_kind("move", 30)
                moved += 1
            # Whoever has not been told is served as before.
            await socket.raw.close()

        following = [asyncio.create_task(follow(socket)) for socket in sockets]
        await asyncio.gather(*following)
        assert moved == 12
        # An hour was allowed; nobody is left.
        assert await old.wait_async(20) == 0
        assert new.metrics()["imserver_draining"] == 0


async def test_wall_clocks_that_jump_change_nothing(redis_server, spawn_imservers, tmp_path: Path):
    folder = tmp_path / "jumpy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_JUMPY)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    [jumpy] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=2, PYTHONPATH=path
    )
    [steady] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=2)
    events: list[tuple[str, str]] = []
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        bus = await im.event_bus(lambda c, m: events.append(("on", c)), lambda c, m: events.append(("off", c)))
        await stack.enter_async_context(bus)
        there = await stack.enter_async_context(connected(jumpy, im, "there", envelope=True))
        here = await stack.enter_async_context(connected(steady, im, "here", envelope=True))
        for socket in (there, here):
            await socket.recv_kind("hello")
        # Over both jumps, forward and back, several times a lease.
        for turn in range(12):
            await im.send_message("there", "here", turn, receipt=True)
            await im.send_message("here", "there", turn)
            got = await here.recv_kind("msg")
            assert got["data"] == (await there.recv_kind("msg"))["data"] == turn
            await here.ack(got["pos"])
            assert (await there.recv_kind("receipt"))["status"] == "delivered"
            await asyncio.sleep(0.4)
        assert jumpy.running and steady.running
        assert events == [("on", "there"), ("on", "here")]
        assert {s.name for s in await im.servers()} == {jumpy.name, steady.name}
        for server in (jumpy, steady):
            assert server.metrics()["imserver_reclaims_total"] == server.metrics()["imserver_gaps_total"] == 0
