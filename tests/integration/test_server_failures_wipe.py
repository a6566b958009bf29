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
