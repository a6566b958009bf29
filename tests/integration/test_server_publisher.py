# Who publishes the topology when the servers elect one of themselves, and what happens when that one dies.
# The publisher's term is 15 s; a dead publisher must not hold the table up for that long.

import asyncio
from typing import Any

import pytest

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


@pytest.mark.parametrize("field", ["record", "epoch"])
async def test_a_topology_that_cannot_be_read_is_written_anew(
    redis_server: RedisServer, spawn_imservers: SpawnImservers, field: str
):
    servers = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_LEASE_SECONDS=1)
    async with ImHelper(redis_server.url) as im:

        async def both() -> bool:
            return len((await im.topology()).servers) == 2

        await eventually(both, what="a table of both")
        good = await im.topology()
        changes = {"record": '{"format":9}', "epoch": str(good.epoch + 1)} if field == "record" else {"epoch": "none"}
        redis_server.command("HSET", "{im}:topo", *[x for change in changes.items() for x in change])
        written: set[object] = {change.encode() for change in changes.values()}

        def another() -> bool:
            found: Any = redis_server.command("HMGET", "{im}:topo", "epoch", "record")
            return written.isdisjoint(found)

        async def read_by_helpers() -> bool:
            return (await im.topology()).epoch > good.epoch + 1

        await eventually(another, what="another one in Redis")
        await eventually(read_by_helpers, what="the new one at helpers")
        assert (await im.topology()).table == good.table
        assert all(server.running for server in servers)


def _published(output: str) -> bool:
    return "published the topology: s0 (active), s1 (active), s2 (active)" in output
