# A way to Redis that dies without a word: the server notices, says so where it is asked, and connects again.
# A read that never comes back is found by the canary; Redis being away as a whole leaves servers ready.

import asyncio

import pytest

from imhelper import ImHelper
from tests.support.cluster import connected
from tests.support.proxy import proxy_to
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


async def test_entries_that_do_not_come_back_make_a_server_unready_until_they_do(redis_server, spawn_imservers):
    async with proxy_to(redis_server.port) as proxy:
        [server] = await asyncio.to_thread(spawn_imservers, 1, f"redis://127.0.0.1:{proxy.port}")

        async def ready() -> tuple[int, str]:
            return await asyncio.to_thread(server.admin_get, "/readyz")

        async def metric(name: str) -> float:
            found: float = (await asyncio.to_thread(server.metrics))[name]
            return found

        async with ImHelper(redis_server.url) as im, connected(server, im, "al", envelope=True) as socket:
            await socket.recv_kind("hello")
            await im.send_message("x", "al", "before")
            assert (await socket.recv_kind("msg"))["data"] == "before"
            # The blocking read alone goes silent, and each one that takes its place.
            proxy.swallows = b"XREAD"
            await im.send_message("x", "al", "meanwhile")

            async def unready() -> bool:
                status, text = await ready()
                return status == 503 and "reader of group 0" in text

            await eventually(unready, 20)
            assert await metric("imserver_redis_up") == 1
            assert await metric("imserver_reader_lag_seconds") > 0
            proxy.swallows = None

            async def healthy() -> bool:
                return (await ready())[0] == 200

            await eventually(healthy, 20)
            assert (await socket.recv_kind("msg"))["data"] == "meanwhile"
            # Now all that is said is swallowed, as if Redis were gone.
            proxy.swallows = b""

            async def down() -> bool:
                return await metric("imserver_redis_up") == 0

            await eventually(down, 20)
            assert (await ready())[0] == 200, "the other servers can't reach it either"
            proxy.swallows = None

            async def up() -> bool:
                return await metric("imserver_redis_up") == 1

            await eventually(up, 20)
            await im.send_message("x", "al", "after")
            assert (await socket.recv_kind("msg", 20))["data"] == "after"
            assert await metric("imserver_gaps_total") == 0
