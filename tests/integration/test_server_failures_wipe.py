# Redis loses everything while clients are connected: FLUSHALL, or a restart without an append-only file.
# Servers record again what they hold; numbers in the logs begin anew, and receipts must still come true.

import asyncio
from contextlib import AsyncExitStack

from imhelper import ImHelper, NoServerError
from tests.support.cluster import connected
from tests.support.waiting import eventually


async def test_receipts_come_true_after_redis_lost_everything(redis_server, spawn_imservers):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        for n in range(30):
            # So that their sockets begin at a number that the new logs reach only much later.
            await im.send_message("x", ["al", "bo"], f"before {n}")
        al = await stack.enter_async_context(connected(server, im, "al"))
        bo = await stack.enter_async_context(connected(server, im, "bo"))
        await asyncio.to_thread(redis_server.command, "FLUSHALL")

        async def both_online() -> bool:
            try:
                await im.topology()
            except NoServerError:
                return False
            return set(await im.get_client_list_by_online()) == {"al", "bo"}

        await eventually(both_online, 20)
        # Plain clients can't be told of the loss; their sockets go on.
        await im.send_message("bo", "al", "after", receipt=True)
        assert await al.recv() == "after"
        assert await bo.recv() == '{"content":"after","receipt":"delivered"}'


async def test_who_is_not_told_of_a_loss_yet_gets_nothing_to_go_on_from(redis_server, spawn_imservers):
    # One is told at once, the next in ten seconds; what the others are given meanwhile must not hide the loss.
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_DRAIN_RATE=0.1)
    async with ImHelper(redis_server.url, timeout=15) as im, AsyncExitStack() as stack:
        sockets = {}
        for name in ("a", "b", "c"):
            sockets[name] = await stack.enter_async_context(connected(server, im, name, envelope=True))
            await im.join_chan(name, "room")
            await im.send_chan_message("s", "room", "before")
            assert (await sockets[name].recv_kind("msg"))["data"] == "before"
        await asyncio.to_thread(redis_server.command, "FLUSHALL")
        await eventually(lambda: server.metrics().get('imserver_disconnects_total{code="4002"}') == 1, 20)
        untold = {name: s for name, s in sockets.items() if s.raw.close_code is None}
        assert len(untold) == 2
        name, socket = untold.popitem()
        async with connected(server, im, name, envelope=True) as other:
            await other.recv_kind("hello")
            await im.send_message("s", name, "after")
            assert (await other.recv_kind("msg"))["data"] == "after"
        await socket.send_json({"t": "ping"})
        frame = await socket.recv_json()
        while frame.get("data") == "before":
            frame = await socket.recv_json()
        assert frame["t"] == "pong", "nothing of after the loss comes before it is told"
        async with connected(server, im, name, envelope=True, since=frame["pos"]) as again:
            assert (await again.recv_kind("hello"))["recovered"] is False
        assert await socket.closed(40) == (4002, "Redis lost writes: reload")
        await asyncio.to_thread(server.kill)
