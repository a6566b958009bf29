# A server that was frozen while Redis restarted: what it reads when it wakes is old news.
# It must not take a plain restart, in which nothing was lost, for a failover.

import asyncio

from imhelper import ImHelper
from tests.support.cluster import connected
from tests.support.waiting import eventually


async def test_a_restart_of_redis_slept_through_is_no_loss(redis_server, spawn_imservers):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=60)
    async with ImHelper(redis_server.url) as im, connected(server, im, "al", envelope=True) as socket:
        await socket.recv_kind("hello")
        server.freeze()
        # An answer of the old Redis waits for the server to wake.
        await im.send_message("x", "al", "before")
        await asyncio.to_thread(redis_server.restart)
        # As long as it takes a Redis to be up for a while; its clock counts whole seconds.
        info = redis_server.command

        def up() -> bool:
            return int(dict(info("INFO", "server"))["uptime_in_seconds"]) >= 3

        await eventually(lambda: asyncio.to_thread(up))
        await im.send_message("x", "al", "after")
        server.thaw()
        got = [(await socket.recv_kind("msg"))["data"] for _ in range(2)]
        assert got == ["before", "after"]
        assert server.metrics()["imserver_gaps_total"] == 0
        await im.send_message("x", "al", "later")
        assert (await socket.recv_kind("msg"))["data"] == "later"
        assert "lost writes" not in server.output
