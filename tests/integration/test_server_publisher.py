# Who publishes the topology when the servers elect one of themselves, and what happens when that one dies.
# The publisher's term is 15 s; a dead publisher must not hold the table up for that long.

import asyncio

from imhelper import ImHelper
from tests.conftest import SpawnImservers
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually


async def test_a_dead_publisher_is_replaced_with_its_lease(redis_server: RedisServer, spawn_imservers: SpawnImservers):
    servers = await asyncio.to_thread(spawn_imservers, 3, redis_server.url, IM_LEASE_SECONDS=1)
    async with ImHelper(redis_server.url) as im:

        async def names() -> set[str]:
            return {server.name for server in (await im.topology()).servers}

        async def all_are_listed() -> bool:
            return await names() == {server.name for server in servers}

        await eventually(all_are_listed, what="a table of three servers")
        publisher = next(server for server in servers if _published(server.output))
        epoch = (await im.topology()).epoch
        publisher.kill()

        async def is_gone() -> bool:
            return publisher.name not in await names()

        await eventually(is_gone, timeout=8, what="a table without the dead publisher, long before its term ends")
        assert (await im.topology()).epoch > epoch
        assert len(set((await im.topology()).table)) == 2


async def test_a_server_that_is_ready_is_in_the_table(redis_server: RedisServer, spawn_imservers: SpawnImservers):
    # With so long a lease the publisher looks by itself only once a minute.
    async with ImHelper(redis_server.url) as im:
        for number in range(1, 4):
            await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=300)

            async def all_are_listed(expected: int = number) -> bool:
                return len((await im.topology()).servers) == expected

            await eventually(all_are_listed, what=f"a table of {number} servers")


def _published(output: str) -> bool:
    return "published the topology: s0 (active), s1 (active), s2 (active)" in output
