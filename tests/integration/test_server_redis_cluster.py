# imserver on a real Redis Cluster: 16 groups of keys over three primaries, receipts that cross from group to group.
# The same promises as on one Redis; only where the keys lie differs.

import asyncio
from contextlib import AsyncExitStack

import pytest

from imhelper import ImHelper
from imhelper.core.keys import group_tag
from imhelper.core.slots import group_of, slot_of
from tests.conftest import SpawnImservers
from tests.support.redis_cluster import holder_of, migrate_slot, move_slot
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually
from tests.support.ws import open_socket

CLIENTS = [f"client-{i}" for i in range(24)]


def _url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.mark.timeout(120)
async def test_chat_channels_receipts_and_presence(redis_cluster: list[RedisServer], spawn_imservers: SpawnImservers):
    url = _url(redis_cluster)
    await asyncio.to_thread(spawn_imservers, 2, url, IM_GRACE_SECONDS=1)
    async with ImHelper(url) as im:
        topology = await im.topology()
        assert topology.groups == 16
        groups = {group_of(slot_of(c, topology.slots), 16) for c in CLIENTS}
        assert len(groups) > 8, "the clients must lie in many groups, or this test shows nothing"
        sockets = {}
        async with AsyncExitStack() as stack:
            for i, client in enumerate(CLIENTS):
                url = await im.prev_connect_server(client)
                socket = await stack.enter_async_context(open_socket(url, envelope=i % 2 == 0))
                if i % 2 == 0:
                    assert (await socket.recv_json())["t"] == "hello"
                sockets[client] = socket
            assert sorted(await im.get_client_list_by_online()) == sorted(CLIENTS)
            assert await im.get_online_count() == len(CLIENTS)

            first, second = CLIENTS[0], CLIENTS[1]
            sent = await im.send_message(first, [*CLIENTS[1:], "nobody"], {"n": 1}, receipt=True)
            statuses: dict[str, str] = {}
            for i, client in enumerate(CLIENTS[1:], start=1):
                if i % 2 == 0:
                    envelope = await sockets[client].recv_json()
                    assert (envelope["id"], envelope["data"]) == (sent, {"n": 1})
                    await sockets[client].ack(envelope["pos"])
                else:
                    assert await sockets[client].recv_json() == {"n": 1}
            while len(statuses) < len(CLIENTS):
                receipt = await sockets[first].recv_kind("receipt")
                assert receipt["id"] == sent and receipt["to"] not in statuses
                statuses[receipt["to"]] = receipt["status"]
            assert statuses == dict.fromkeys(CLIENTS[1:], "delivered") | {"nobody": "offline"}

            for client in CLIENTS:
                assert await im.join_chan(client, "room")
            assert await im.get_chan_online("room") == len(CLIENTS)
            assert await im.get_chan_list() == [("room", len(CLIENTS))]
            await im.send_chan_message(second, "room", "to all")
            for i, client in enumerate(CLIENTS):
                if i % 2 == 0:
                    assert (await sockets[client].recv_kind("msg"))["data"] == "to all"
                else:
                    assert await sockets[client].recv() == "to all"
        await eventually(lambda: im_is_empty(im), what="offline after grace")
        assert await im.get_chan_list() == []


async def im_is_empty(im: ImHelper) -> bool:
    return await im.get_online_count() == 0


@pytest.mark.parametrize("way", ["key by key", "at once"])
async def test_a_hash_slot_that_moves_loses_nothing_and_nobody_is_told_of_a_loss(
    redis_cluster: list[RedisServer], spawn_imservers: SpawnImservers, redis_flavour: str, way: str
):
    if way == "at once" and redis_flavour != "valkey":
        pytest.skip("only Valkey 9 moves a slot at once")
    url = _url(redis_cluster)
    (server,) = await asyncio.to_thread(spawn_imservers, 1, url)
    async with ImHelper(url, timeout=10) as im, AsyncExitStack() as stack:
        group = group_of(slot_of("client-0", (await im.topology()).slots), 16)
        tag = group_tag("im", group)
        plain, envelope = [
            await stack.enter_async_context(open_socket(await im.prev_connect_server("client-0"), envelope=e))
            for e in (False, True)
        ]
        assert (await envelope.recv_json())["t"] == "hello"
        old = await asyncio.to_thread(holder_of, redis_cluster, tag)
        new = next(node for node in redis_cluster if node is not old)
        moving = asyncio.create_task(_move(redis_cluster, tag, old, new, way))
        sent = 0
        while not moving.done():
            await im.send_message("other", "client-0", f"{sent}")
            sent += 1
            await asyncio.sleep(0.01)
        await moving
        # The global keys have a slot, too: the server's lease goes with them.
        old = await asyncio.to_thread(holder_of, redis_cluster, "{im}")
        await _move(redis_cluster, "{im}", old, next(n for n in redis_cluster if n is not old), way)
        for number in range(sent, sent + 5):
            await im.send_message("other", "client-0", f"{number}")
            await asyncio.sleep(0.5)
        expected = [str(number) for number in range(sent + 5)]
        assert [await plain.recv() for _ in expected] == expected
        assert [(await envelope.recv_json())["data"] for _ in expected] == expected
        assert server.metrics()["imserver_gaps_total"] == 0
        assert "another Redis is the primary" not in server.output


async def _move(nodes: list[RedisServer], tag: str, old: RedisServer, new: RedisServer, way: str) -> None:
    if way == "at once":
        await asyncio.to_thread(migrate_slot, tag, old, new)
    else:
        await asyncio.to_thread(move_slot, nodes, tag, old, new, pause=0.3)
