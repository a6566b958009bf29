# Receipts: exactly one from each receiver, true when written to a plain socket or acked by an envelope one.
# A client may ack whatever it likes; only what was written to its own sockets counts.

import asyncio
import json
from collections import Counter

from tests.support.cluster import connected, new_name
from tests.support.ws import Socket


async def no_receipt_yet(sender: Socket) -> None:
    """The sender's stream holds nothing up to now: its pong is the next frame."""
    await sender.send_json({"t": "ping"})
    frame = await sender.recv_json()
    assert frame["t"] == "pong", frame


async def test_plain_and_envelope_receivers_online_and_not(cluster, im):
    sender, plain, acking, nobody = new_name("sender"), new_name("plain"), new_name("acking"), new_name("nobody")
    async with (
        connected(cluster.servers[0], im, sender, envelope=True) as out,
        connected(cluster.servers[1], im, plain) as one,
        connected(cluster.servers[2], im, acking, envelope=True) as two,
    ):
        await out.recv_kind("hello")
        await two.recv_kind("hello")
        message_id = await im.send_message(sender, [plain, acking, nobody, nobody], "?", receipt=True)
        assert await one.recv() == "?"
        received = await two.recv_json()
        first = {r["to"]: r["status"] for r in [await out.recv_json(), await out.recv_json()]}
        assert first == {plain: "delivered", nobody: "offline"}
        await no_receipt_yet(out)
        await two.ack(received["pos"])
        receipt = await out.recv_json()
        assert receipt.pop("pos")
        assert receipt == {"t": "receipt", "id": message_id, "to": acking, "status": "delivered"}
        await two.ack(received["pos"])
        await no_receipt_yet(out)


async def test_a_plain_sender_sees_receipts_as_imcores_clients_know_them(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with connected(cluster.servers[0], im, sender) as out, connected(cluster.servers[1], im, receiver) as one:
        for message, content in (('hé"\n', 'hé"\n'), (b"\x00\xff", "AP8="), ({"a": [None]}, {"a": [None]}), (5, 5)):
            await im.send_message(sender, receiver, message, receipt=True)
            await one.recv()
            assert json.loads(await out.recv()) == {"content": content, "receipt": "delivered"}
            await im.send_message(sender, new_name("nobody"), message, receipt=True)
            assert json.loads(await out.recv()) == {"content": content, "receipt": "user not online"}


async def test_two_devices_yield_one_receipt_that_all_of_the_senders_devices_get(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with (
        connected(cluster.servers[0], im, sender, envelope=True) as out,
        connected(cluster.servers[1], im, sender, envelope=True) as also,
        connected(cluster.servers[0], im, receiver) as one,
        connected(cluster.servers[2], im, receiver, envelope=True) as two,
    ):
        for socket in (out, also, two):
            await socket.recv_kind("hello")
        message_id = await im.send_message(sender, [sender, receiver], "?", receipt=True)
        received = await two.recv_json()
        await two.ack(received["pos"])
        assert await one.recv() == "?"
        for socket in (out, also):
            frames = [await socket.recv_json() for _ in range(2)]
            assert [f["data"] for f in frames if f["t"] == "msg"] == ["?"], "the echo"
            [receipt] = [f for f in frames if f["t"] == "receipt"]
            assert (receipt["id"], receipt["to"], receipt["status"]) == (message_id, receiver, "delivered")
            await no_receipt_yet(socket)


async def test_an_ack_of_what_was_not_written_counts_for_nothing(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with (
        connected(cluster.servers[0], im, sender, envelope=True) as out,
        connected(cluster.servers[1], im, receiver, envelope=True) as one,
    ):
        await out.recv_kind("hello")
        start = (await one.recv_json())["pos"]
        await im.send_message(sender, receiver, "?", receipt=True)
        pos = (await one.recv_json())["pos"]
        incarnation, _, stream_id = pos.partition(".")
        ms, _, n = stream_id.partition("-")
        for harmless in (start, "1.1-1", f"{int(incarnation) + 1}.{stream_id}", f"{incarnation}.{ms}-{int(n) - 1}"):
            await one.ack(harmless)
        await one.send_json({"t": "ping"})
        assert (await one.recv_json()) == {"t": "pong", "pos": pos}
        await no_receipt_yet(out)
        # The future: what was written so far is acked by it, what comes later is not.
        await one.ack(f"{incarnation}.{ms}-{int(n) + 1000}")
        assert (await out.recv_json())["status"] == "delivered"
        await im.send_message(sender, receiver, "later", receipt=True)
        assert (await one.recv_json())["data"] == "later"
        await asyncio.sleep(0.3)
        await no_receipt_yet(out)


async def test_an_ack_ahead_of_what_the_socket_was_given_counts_when_it_is_given(cluster, im):
    """Found by chaos: what came to the old socket of a move at last was acked to the new one, ahead of it."""
    sender, receiver = new_name("sender"), new_name("receiver")
    async with (
        connected(cluster.servers[0], im, sender, envelope=True) as out,
        connected(cluster.servers[1], im, receiver, envelope=True) as one,
    ):
        await out.recv_kind("hello")
        incarnation, _, stream_id = (await one.recv_json())["pos"].partition(".")
        ms, _, n = stream_id.partition("-")
        await one.ack(f"{incarnation}.{ms}-{int(n) + 1}")
        await asyncio.sleep(1.2)
        await im.send_message(sender, receiver, "?", receipt=True)
        await im.send_message(sender, receiver, "and what was not acked", receipt=True)
        assert (await one.recv_json())["data"] == "?"
        assert (await out.recv_json())["status"] == "delivered"
        await no_receipt_yet(out)


async def test_who_goes_without_an_ack_is_offline_when_grace_ends(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with connected(cluster.servers[0], im, sender, envelope=True) as out:
        await out.recv_kind("hello")
        async with connected(cluster.servers[1], im, receiver, envelope=True) as one:
            await one.recv_kind("hello")
            await im.send_message(sender, receiver, "?", receipt=True)
            await one.recv_json()
        assert (await out.recv_json(15))["status"] == "offline"
        await no_receipt_yet(out)


async def test_a_position_that_one_comes_back_with_is_an_ack(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with connected(cluster.servers[0], im, sender, envelope=True) as out:
        await out.recv_kind("hello")
        async with connected(cluster.servers[1], im, receiver, envelope=True) as one:
            await one.recv_kind("hello")
            first = await im.send_message(sender, receiver, "1", receipt=True)
            pos = (await one.recv_json())["pos"]
            second = await im.send_message(sender, receiver, "2", receipt=True)
            await one.recv_json()
            one.abort()
        async with connected(cluster.servers[2], im, receiver, envelope=True, since=pos) as one:
            assert (await one.recv_json())["recovered"] is True
            receipt = await out.recv_json()
            assert (receipt["id"], receipt["status"]) == (first, "delivered")
            await one.ack((await one.recv_json())["pos"])
            receipt = await out.recv_json()
            assert (receipt["id"], receipt["status"]) == (second, "delivered")


async def test_many_receivers_yield_one_receipt_each(cluster, im):
    sender, receivers = new_name("sender"), [new_name() for _ in range(60)]
    async with connected(cluster.servers[0], im, sender, envelope=True) as out:
        await out.recv_kind("hello")
        sockets = [connected(cluster.servers[i % 3], im, r) for i, r in enumerate(receivers[:20])]
        for socket in sockets:
            await socket.__aenter__()
        try:
            await asyncio.gather(*(im.send_message(sender, receivers, n, receipt=True) for n in range(5)))
            got = [await out.recv_json() for _ in range(5 * 60)]
        finally:
            for socket in sockets:
                await socket.__aexit__(None, None, None)
        counts = Counter((r["id"], r["to"], r["status"]) for r in got)
        assert len(counts) == 300 and set(counts.values()) == {1}
        assert sum(r["status"] == "delivered" for r in got) == 100
