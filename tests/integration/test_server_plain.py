# Plain mode: ImCore's clients, which know no positions, get what they missed when they come back within grace.
# What the kernel has taken is out of a server's hands; all else must not be lost, however the connection ended.

import asyncio
from collections.abc import Callable

import pytest

from imhelper import ImHelper
from imhelper.core.keys import client_sockets, group_tag
from tests.support.cluster import connected, new_name, token_for, url_on
from tests.support.imserver import ImServer
from tests.support.raw import CLOSE, TEXT, raw_socket
from tests.support.waiting import eventually
from tests.support.ws import Socket, open_socket


def abort(socket: Socket) -> None:
    socket.abort()


@pytest.mark.parametrize("where", [0, 1], ids=["same server", "another server"])
@pytest.mark.parametrize("leave", [None, abort], ids=["closed", "lost"])
async def test_who_comes_back_within_grace_gets_what_it_missed_once(
    cluster, im, where: int, leave: Callable[[Socket], None] | None
):
    client, chan = new_name(), new_name("room")
    async with connected(cluster.servers[0], im, client) as socket:
        await im.join_chan(client, chan)
        await im.send_message("s", client, "seen")
        assert await socket.recv() == "seen"
        if leave is not None:
            leave(socket)
    await eventually(lambda: left(im, client))
    await im.send_message("s", client, "1")
    await im.send_chan_message("s", chan, "2")
    await im.send_message("s", client, "3")
    async with connected(cluster.servers[where], im, client) as socket:
        await im.send_message("s", client, "4")
        assert [await socket.recv() for _ in range(4)] == ["1", "2", "3", "4"]


async def left(im: ImHelper, client: str) -> bool:
    """Whether no server holds a socket of the client (it may be in grace)."""
    return not await im._link.command(0, "HLEN", client_sockets(group_tag("im", 0), client))


async def test_who_comes_back_after_grace_gets_nothing_old(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client):
        pass
    await im.send_message("s", client, "missed")

    async def offline() -> bool:
        return not await im.has_online(client)

    await eventually(offline, 15)
    async with connected(cluster.servers[0], im, client) as socket:
        await im.send_message("s", client, "new")
        assert await socket.recv() == "new"


async def test_another_tab_starts_with_what_comes_from_now_on(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client) as first:
        await im.send_message("s", client, "before")
        async with (
            connected(cluster.servers[1], im, client) as second,
            connected(cluster.servers[0], im, client) as third,
        ):
            await im.send_message("s", client, "after")
            assert [await first.recv(), await first.recv()] == ["before", "after"]
            assert await second.recv() == await third.recv() == "after"


async def test_what_waits_in_the_servers_buffer_is_not_lost_with_the_connection(cluster, im):
    client, server = new_name(), cluster.servers[0]
    payload = "b" * 20_000
    async with raw_socket(await url_on(server, im, client), receive_buffer=4096, limit=1024) as slow:
        sent = 0
        # The kernel takes some; then the server's own buffer holds the rest, and is not over its bound yet.
        while server.metrics()["imserver_write_buffer_bytes"] < 60_000:
            await im.send_message("s", client, f"{sent} {payload}")
            sent += 1
            assert sent < 1000
            await asyncio.sleep(0.002)
        unsent = server.metrics()["imserver_write_buffer_bytes"]
        slow.reset()
    await eventually(lambda: left(im, client))
    async with connected(cluster.servers[1], im, client) as socket:
        await im.send_message("s", client, "end")
        got = []
        while (frame := await socket.recv()) != "end":
            got.append(int(str(frame).partition(" ")[0]))
    assert got == list(range(sent - len(got), sent)), "in order, up to the last"
    assert len(got) * 20_000 >= unsent - 20_000, "at least what the kernel had not taken"


async def test_a_lost_connection_brings_nothing_twice_when_all_had_left(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client) as socket:
        for n in range(20):
            await im.send_message("s", client, n)
        assert [await socket.recv() for _ in range(20)] == [str(n) for n in range(20)]
        socket.abort()
    await eventually(lambda: left(im, client))
    async with connected(cluster.servers[1], im, client) as socket:
        await im.send_message("s", client, "new")
        assert await socket.recv() == "new"


async def test_a_slow_plain_client_gets_the_rest_when_it_comes_back(redis_server, spawn_imservers):
    # Reading what the kernel held takes its time on a busy machine.
    server, other = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_GRACE_SECONDS=30)
    async with ImHelper(redis_server.url) as im:
        await be_slow_and_come_back(im, server, other, new_name())


async def be_slow_and_come_back(im: ImHelper, server: ImServer, other: ImServer, client: str) -> None:
    payload = "s" * 60_000
    before = server.metrics()["imserver_slow_consumers_total"]
    got: list[int] = []
    sent = 0
    async with raw_socket(await url_on(server, im, client), receive_buffer=4096, limit=1024) as slow:
        while server.metrics()["imserver_slow_consumers_total"] == before:
            await im.send_message("s", client, f"{sent} {payload}")
            sent += 1
            assert sent < 500
        while (frame := await slow.frame()).opcode == TEXT:
            got.append(int(frame.payload.partition(b" ")[0]))
        assert frame.opcode == CLOSE and frame.code == 4001
    await im.send_message("s", client, "end")
    async with connected(other, im, client) as socket:
        while (text := str(await socket.recv())) != "end":
            got.append(int(text.partition(" ")[0]))
    # What was still in the server's buffer when it closed may have arrived, and comes again.
    assert sorted(set(got)) == list(range(sent))
    assert len(got) <= sent + 10


async def test_messages_while_clients_hop_between_servers_are_not_lost(cluster, im):
    client = new_name()
    tokens = [await token_for(im, client) for _ in range(12)]
    total = 600

    async def send() -> None:
        for n in range(total):
            await im.send_message("s", client, n)
            await asyncio.sleep(0.002)

    sending: asyncio.Task[None] | None = None
    got: list[int] = []
    for hop, token in enumerate(tokens):
        async with open_socket(f"{cluster.servers[hop % 3].url}?token={token}") as socket:
            sending = sending or asyncio.create_task(send())
            for _ in range(total // len(tokens)):
                got.append(int(await socket.recv()))
                if got[-1] == total - 1:
                    break
            # What has arrived before the close is answered is read too; then it comes back.
            await socket.raw.close()
            async for frame in socket.raw:
                got.append(int(frame))
        await eventually(lambda: left(im, client))
    assert sending is not None
    await sending
    async with connected(cluster.servers[0], im, client) as socket:
        await im.send_message("s", client, total)
        while (n := int(await socket.recv())) != total:
            got.append(n)
    assert got == list(range(total)), "each once, in order"


async def test_without_grace_a_client_is_offline_at_once(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=0)
    async with ImHelper(redis_server.url) as im:
        events: list[str] = []
        async with await im.event_bus(lambda c, m: events.append(f"on {c}"), lambda c, m: events.append(f"off {c}")):
            async with connected(server, im, "a"), connected(server, im, "b"):
                assert await im.join_chan("a", "room")
                async with connected(server, im, "a"):
                    pass
                assert await im.has_online("a")
            await eventually(lambda: len(events) == 4)
            assert sorted(events[2:]) == ["off a", "off b"]
            assert await im.get_client_list_by_online() == [] and await im.get_chan_list() == []
            await im.send_message("s", "a", "missed")
            async with connected(server, im, "a") as socket:
                await im.send_message("s", "a", "new")
                assert await socket.recv() == "new"
