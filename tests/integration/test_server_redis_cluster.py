# imserver on a real Redis Cluster: 16 groups of keys over three primaries, receipts that cross from group to group.
# The same promises as on one Redis; only where the keys lie differs.

import asyncio
from contextlib import AsyncExitStack

import pytest

from imhelper import ImHelper
from imhelper.core.slots import group_of, slot_of
from tests.conftest import SpawnImservers
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
