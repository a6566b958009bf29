# Receipts over failures: the receiver's server, the sender's server and Redis go away at the worst moments.
# Each receiver yields one receipt, `delivered` only for what somebody got, `offline` only for who never came back.

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack

import pytest

from imhelper import ImHelper
from tests.support.cluster import connected
from tests.support.waiting import eventually
from tests.support.ws import Socket

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


async def test_each_receiver_yields_one_receipt_whatever_dies(redis_server, spawn_imservers):
    redis_server.command("CONFIG", "SET", "appendfsync", "always")
    of_receivers, of_senders, lives = await asyncio.to_thread(
        spawn_imservers, 3, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=6
    )
    frozen, *_ = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=60, IM_GRACE_SECONDS=6)
    receipts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    positions: dict[str, str] = {}

    async def greeted(socket: Socket, name: str) -> Socket:
        positions[name] = str((await socket.recv_kind("hello"))["pos"])
        return socket

    async def take(socket: Socket, name: str, text: str) -> None:
        """Receive up to a message, noting receipts and the position."""
        while True:
            frame = await socket.recv_json(20)
            positions[name] = frame["pos"]
            if frame["t"] == "receipt":
                receipts[name].append((frame["to"], frame["status"]))
            elif frame["data"] == text:
                return

    async with ImHelper(redis_server.url, timeout=20) as im, AsyncExitStack() as stack:

        async def on(server, name: str, since: str | None = None) -> Socket:
            socket = await stack.enter_async_context(connected(server, im, name, envelope=True, since=since))
            return await greeted(socket, name)

        safe, _ = await on(lives, "safe sender"), await on(of_senders, "lost sender")
        sockets = {n: await on(of_receivers, n) for n in ("acked", "written", "resumes", "goes")}
        plain = await stack.enter_async_context(connected(of_receivers, im, "plain"))
        await on(frozen, "asleep")
        stays = await on(lives, "stays")
        everyone = [*sockets, "plain", "asleep", "stays", "nobody"]
        frozen.freeze()
        for sender in ("safe sender", "lost sender"):
            await im.send_message(sender, everyone, f"from {sender}", receipt=True)
        for name, socket in sockets.items():
            if name in ("acked", "written"):
                # Got; acked in time, or not.
                at = positions[name]
                await take(socket, name, "from lost sender")
                if name == "acked":
                    await socket.ack(positions[name])
                else:
                    assert positions[name] != at
        assert [await plain.recv(), await plain.recv()] == ["from safe sender", "from lost sender"]

        async def told() -> bool:
            """The acks that were sent have reached Redis."""
            return not any([await im._link.command(0, "ZCARD", f"{{im:0}}:pend:{n}") for n in ("acked", "plain")])

        await eventually(told)
        of_receivers.kill()
        of_senders.kill()
        frozen.kill()
        await asyncio.to_thread(redis_server.kill_and_restart)
        # All but one come back elsewhere; who comes back with a position has got what lies before it.
        await on(lives, "written", positions["written"])
        again = await on(lives, "resumes", positions["resumes"])
        await take(again, "resumes", "from lost sender")
        await again.ack(positions["resumes"])
        woken = await on(lives, "asleep", positions["asleep"])
        await take(woken, "asleep", "from lost sender")
        await woken.ack(positions["asleep"])
        await stack.enter_async_context(connected(lives, im, "plain"))
        back = await on(lives, "lost sender", positions["lost sender"])
        await take(stays, "stays", "from lost sender")
        await stays.ack(positions["stays"])
        # A restart of Redis between the ack and the receipt that it brings.
        await asyncio.to_thread(redis_server.restart)

        async def settled() -> bool:
            online = set(await im.get_client_list_by_online())
            pending = [await im._link.command(0, "ZCARD", f"{{im:0}}:pend:{n}") for n in everyone]
            return "goes" not in online and not any(pending)

        await eventually(settled, 40)
        for name, socket in (("safe sender", safe), ("lost sender", back)):
            await im.send_message("x", name, "the end")
            await take(socket, name, "the end")
    expected = {(n, "delivered") for n in everyone} - {("goes", "delivered"), ("nobody", "delivered")}
    expected |= {("goes", "offline"), ("nobody", "offline")}
    for name in ("safe sender", "lost sender"):
        # What comes again after `since` is the same receipt.
        assert set(receipts[name]) == expected
    assert len(receipts["safe sender"]) == len(expected), "its socket stayed: nothing comes twice"
