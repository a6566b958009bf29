# After a restart of Redis servers compare what is recorded with what they hold.
# What happened to a client while a server was behind the log must not be undone by that.

import asyncio

import pytest

from imhelper import ImHelper
from imhelper.core import keys
from imhelper.core.scripts import load
from imhelper.core.slots import slot_of
from tests.support.boot import Boot
from tests.support.cluster import connected
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

RETENTION = (10_000, 16_777_216, 60_000)


@pytest.fixture
async def im(redis_server):
    async with ImHelper(redis_server.url) as helper:
        yield helper


@pytest.fixture
async def boot(redis_server):
    server = await asyncio.to_thread(Boot, redis_server.url, "im")
    await asyncio.to_thread(server.publish)
    return server


async def restore(boot: Boot, cursor: bytes, client: str, *chans: str) -> list[int | bytes]:
    """What a server asks that has worked off the client's log up to `cursor` and holds its only socket."""
    slot = slot_of(client, boot.slots)
    socket: tuple[str | bytes | int, ...] = (boot.sockets, client, cursor, "p", "", len(chans), *chans)
    return await asyncio.to_thread(boot.link.eval, load("restore"), 0, *RETENTION, boot.boot, slot, cursor, 1, *socket)


def lease(redis: RedisServer) -> object:
    return redis.command("HGET", keys.servers("im"), "s0")


async def cursor_of(boot: Boot, client: str) -> bytes:
    key = keys.last_ids(keys.group_tag("im", 0))
    return await asyncio.to_thread(boot.link.command, 0, "HGET", key, slot_of(client, boot.slots)) or b"0-0"


async def test_a_server_behind_the_log_does_not_undo_a_leave(im, boot):
    await asyncio.to_thread(boot.connect, await im.prev_connect_server("al"))
    assert await im.join_chan("al", "room")
    behind = await cursor_of(boot, "al")
    assert await im.leave_chan("al", "room") == 1
    assert await restore(boot, behind, "al", "room") == [0, b"%d" % slot_of("al", boot.slots)]
    assert await im.get_chan_client_list("room") == []
    # Having read on, it holds no membership, and its socket is where it was.
    assert await restore(boot, await cursor_of(boot, "al"), "al") == [0]
    assert await im.has_online("al")


async def test_a_server_behind_the_log_does_not_undo_a_disconnect(im, boot):
    await asyncio.to_thread(boot.connect, await im.prev_connect_server("al"))
    behind = await cursor_of(boot, "al")
    assert await im.disconnect("al") == 1
    assert (await restore(boot, behind, "al"))[1:] == [b"%d" % slot_of("al", boot.slots)]
    assert not await im.has_online("al")


async def test_a_membership_that_redis_lost_is_told_to_all_servers(im, boot):
    await asyncio.to_thread(boot.connect, await im.prev_connect_server("al"))
    assert await restore(boot, await cursor_of(boot, "al"), "al", "room") == [0]
    assert await im.get_chan_client_list("room") == ["al"]
    assert await im.get_chan_online("room") == 1
    assert boot.log(slot_of("al", boot.slots))[-1] == {b"j": b"room", b"c": b"al"}


async def test_a_socket_that_redis_lost_is_recorded_again(im, boot, redis_server):
    await asyncio.to_thread(boot.connect, await im.prev_connect_server("al"))
    cursor = await cursor_of(boot, "al")
    sockets = keys.client_sockets(keys.group_tag("im", 0), "al")
    assert await asyncio.to_thread(redis_server.command, "DEL", sockets, keys.online(keys.group_tag("im", 0))) == 2
    assert not await im.has_online("al")
    assert await restore(boot, cursor, "al") == [1]
    assert await im.has_online("al")
    assert await im.disconnect("al") == 1


async def test_a_leave_and_a_restart_of_redis_that_a_frozen_server_slept_through(redis_server, spawn_imservers, im):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    async with connected(server, im, "al", envelope=True) as socket:
        await socket.recv_kind("hello")
        assert await im.join_chan("al", "room")
        await im.send_chan_message("x", "room", "first")
        assert (await socket.recv_kind("msg"))["data"] == "first"
        server.freeze()
        assert await im.leave_chan("al", "room") == 1
        await asyncio.to_thread(redis_server.restart)
        before = lease(redis_server)
        server.thaw()
        await eventually(lambda: lease(redis_server) != before, 20)
        assert await im.join_chan("al", "room")
        await im.send_chan_message("x", "room", "second")
        assert (await socket.recv_kind("msg"))["data"] == "second"
