# Handshakes that Redis answers too late: refused, and without a trace once Redis goes on.
# A frozen Redis carries out what it was sent only when it wakes, perhaps after what was sent later.

import asyncio

import pytest
from websockets.exceptions import InvalidStatus

from imhelper import ImHelper
from imhelper.core import scripts
from tests.support.cluster import connected, url_on
from tests.support.proxy import proxy_to
from tests.support.waiting import eventually
from tests.support.ws import open_socket


async def test_a_refused_handshake_leaves_nobody_online(redis_server, spawn_imservers):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=0)
    async with ImHelper(redis_server.url) as im:
        urls = [await url_on(server, im, f"al {n}") for n in range(20)]
        redis_server.freeze()
        try:

            async def refused(url: str) -> int:
                with pytest.raises(InvalidStatus) as refusal:
                    async with open_socket(url, timeout=20):
                        pass
                return refusal.value.response.status_code

            assert set(await asyncio.gather(*map(refused, urls))) == {503}
        finally:
            redis_server.thaw()
        await eventually(lambda: server.metrics()["imserver_redis_up"] == 1)
        async with connected(server, im, "bo"):

            async def only_bo() -> bool:
                return await im.get_client_list_by_online() == ["bo"]

            await eventually(only_bo)


async def test_what_reaches_redis_when_nobody_waits_any_more_records_nobody(redis_server, spawn_imservers):
    (other,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    async with proxy_to(redis_server.port) as proxy, ImHelper(redis_server.url, token_ttl=120) as im:
        (server,) = await asyncio.to_thread(spawn_imservers, 1, f"redis://127.0.0.1:{proxy.port}")
        # Redis knows the script from here on, and carries it out whenever it is called.
        async with connected(other, im, "bo"):
            url = await url_on(server, im, "al")
            proxy.holds = scripts.load("connect").sha.encode()
            with pytest.raises(InvalidStatus) as refusal:
                async with open_socket(url, timeout=20):
                    pass
            assert refusal.value.response.status_code == 503
            # The way that the handshake took is given up; the server has another one, and compared what Redis records.
            await eventually(lambda: asyncio.to_thread(lambda: server.metrics()["imserver_redis_up"] == 1), 20)
            await asyncio.sleep(1)
            assert await im.get_client_list_by_online() == ["bo"]
            proxy.released.set()
            await asyncio.wait_for(proxy.answered.wait(), 20)
            assert await im.get_client_list_by_online() == ["bo"]
            async with open_socket(url):
                assert sorted(await im.get_client_list_by_online()) == ["al", "bo"], "its token was not used up"
