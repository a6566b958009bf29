# Who gets what: several sockets a client on one and on several servers, channels, the echo to other devices, evictions.
# Sends go through the helper, as a business service does it; nothing here looks into Redis.

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from imhelper import ImHelper
from tests.support.cluster import Cluster, connected, new_name, token_for
from tests.support.raw import raw, request
from tests.support.waiting import eventually
from tests.support.ws import Socket


@asynccontextmanager
async def devices(
    cluster: Cluster, im: ImHelper, client: str, at: list[int], envelope: bool = False
) -> AsyncIterator[list[Socket]]:
    """A client with a socket on each of these servers, opened in this order; `hello` is read."""
    async with AsyncExitStack() as stack:
        sockets = []
        for index in at:
            socket = await stack.enter_async_context(connected(cluster.servers[index], im, client, envelope=envelope))
            if envelope:
                assert (await socket.recv_json())["t"] == "hello"
            sockets.append(socket)
        yield sockets


async def nothing_before(sockets: list[Socket], im: ImHelper, client: str) -> None:
    """Nothing came to these sockets: the next thing that they get is what is sent now."""
    await im.send_message("service", client, "end")
    for socket in sockets:
        frame = await socket.recv()
        assert (json.loads(frame)["data"] if frame.startswith('{"t"') else frame) == "end"  # type: ignore[arg-type]


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "plain"])
async def test_each_socket_of_a_client_gets_each_message_once_in_order(cluster, im, envelope):
    client = new_name()
    async with devices(cluster, im, client, [0, 0, 1], envelope) as sockets:
        ids = [await im.send_message("service", [client, new_name(), client], f"m{n}") for n in range(30)]
        for socket in sockets:
            frames = [await socket.recv() for _ in ids]
            if envelope:
                envelopes = [json.loads(f) for f in frames]
                assert [e["id"] for e in envelopes] == ids
                assert all(e["from"] == "service" and "chan" not in e for e in envelopes)
                frames = [e["data"] for e in envelopes]
            assert frames == [f"m{n}" for n in range(30)]


@pytest.mark.parametrize(
    "message", ["text é👍\u2028\x00", "", b"\x00\xff", b"", {"a": [1, None, "é"]}, [], 5, 1.5, None, True, "x" * 65536]
)
async def test_every_kind_of_message_in_both_modes(cluster, im, message):
    client = new_name()
    async with devices(cluster, im, client, [0]) as [plain], devices(cluster, im, client, [1], True) as [envelope]:
        await im.send_message("service", client, message)
        got = await plain.recv()
        assert got == message if isinstance(message, str | bytes) else json.loads(got) == message
        received = await envelope.recv_json()
        if isinstance(message, bytes):
            assert received["b64"] is True
            assert received["data"] == {b"": "", b"\x00\xff": "AP8="}[message]
        else:
            assert received["data"] == message and "b64" not in received


async def test_ids_that_hold_anything_legal_break_nothing(cluster, im):
    chan = new_name("room")
    names = [
        f"{odd}-{new_name()}"
        for odd in (
            "*",
            "{",
            "}",
            "{im:0}",
            "im:0}:online",
            '"',
            "\\",
            "%s",
            "a b",
            "?",
            "[a-z]",
            "\u2028",
            "👍",
            "'); --",
            "0",
        )
    ]
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connected(cluster.servers[i % 3], im, n)) for i, n in enumerate(names)
        ]
        for name in names:
            assert await im.join_chan(name, chan)
        assert sorted(await im.get_chan_client_list(chan)) == sorted(names)
        await im.send_chan_message(names[0], chan, "all")
        await im.send_message(names[1], names[2:], "some")
        for index, socket in enumerate(sockets):
            assert [await socket.recv() for _ in range(2 if index > 1 else 1)] == (
                ["all", "some"] if index > 1 else ["all"]
            )
        assert await im.clear_chan_client(chan) == len(names)
        assert await im.get_chan_client_list(chan) == []


async def test_the_oldest_socket_is_evicted_on_whichever_server_it_is(cluster, im):
    client = new_name()
    async with devices(cluster, im, client, [0, 1, 2]) as [first, second, third]:
        async with devices(cluster, im, client, [1]) as [fourth]:
            assert await first.closed() == (4502, "too many sockets for this client")
            async with devices(cluster, im, client, [1]) as [fifth]:
                assert (await second.closed())[0] == 4502
                await nothing_before([third, fourth, fifth], im, client)
                assert await im.has_online(client)
        # Evicted sockets are gone for the count: there is room for these.
        async with devices(cluster, im, client, [0, 0]) as more:
            await nothing_before([third, *more], im, client)


async def test_a_disconnect_closes_all_sockets_for_good_and_kills_older_tokens(cluster, im):
    client = new_name()
    token = await token_for(im, client)
    async with devices(cluster, im, client, [0, 1, 2]) as sockets:
        assert await im.join_chan(client, "some room")
        assert await im.disconnect(client, "bye é" + "x" * 100) == 3
        assert not await im.has_online(client), "offline without grace"
        for socket in sockets:
            assert await socket.closed() == (4500, "bye é" + "x" * 100)
    assert await im.get_chan_list_by_client_id(client) == []
    for server in cluster.servers:
        async with raw(server.port) as connection:
            await connection.send(request(f"/ws?token={token}"))
            assert (await connection.response()).status == 401
    assert await im.disconnect(client) == 0
    async with devices(cluster, im, client, [0]) as again:
        await nothing_before(again, im, client)


async def test_the_senders_other_devices_get_an_echo_and_a_lonely_sender_none(cluster, im):
    sender, receiver = new_name("sender"), new_name("receiver")
    async with devices(cluster, im, sender, [0]) as [one], devices(cluster, im, receiver, [1]) as [other]:
        await im.send_message(sender, [sender, receiver], "to both")
        assert await other.recv() == "to both"
        await nothing_before([one], im, sender)
        async with devices(cluster, im, sender, [2]) as [two]:
            await im.send_message(sender, [receiver, sender], "to all devices")
            assert await other.recv() == await one.recv() == await two.recv() == "to all devices"
            await im.send_message(sender, receiver, "not to me")
            assert await other.recv() == "not to me"
            await nothing_before([one, two], im, sender)


async def test_a_channel_message_goes_to_every_member_the_sender_included(cluster, im):
    chan, members = new_name("room"), [new_name() for _ in range(12)]
    outsider = new_name("outsider")
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(devices(cluster, im, m, [i % 3], i % 2 == 0)) for i, m in enumerate(members)
        ]
        [out] = await stack.enter_async_context(devices(cluster, im, outsider, [0]))
        for member in members:
            assert await im.join_chan(member, chan) and await im.join_chan(member, chan)
        assert await im.get_chan_online(chan) == 12
        message_id = await im.send_chan_message(members[0], chan, {"n": 1})
        for index, [socket] in enumerate(sockets):
            got = await socket.recv_json()
            if index % 2 == 0:
                assert got.pop("pos")
                assert got == {"t": "msg", "id": message_id, "from": members[0], "chan": chan, "data": {"n": 1}}
            else:
                assert got == {"n": 1}
        await nothing_before([out], im, outsider)


async def test_joins_and_leaves_hold_from_the_moment_that_they_returned(cluster, im):
    client, chan = new_name(), new_name("room")
    async with devices(cluster, im, client, [0, 1]) as sockets:
        await im.send_chan_message("s", chan, "before")
        assert await im.join_chan(client, chan)
        await im.send_chan_message("s", chan, "member")
        assert await im.leave_chan(client, chan, "another", chan) == 1
        await im.send_chan_message("s", chan, "left")
        await im.join_chan(client, chan)
        await im.send_chan_message("s", chan, "again")
        assert await im.clear_chan_client(chan) == 1
        await im.send_chan_message("s", chan, "cleared")
        for socket in sockets:
            assert [await socket.recv() for _ in range(2)] == ["member", "again"]
        await nothing_before(sockets, im, client)
    assert await im.leave_chan(client, chan) == 0


async def test_a_socket_that_comes_later_is_a_member_too(cluster, im):
    client, chan = new_name(), new_name("room")
    async with devices(cluster, im, client, [0]) as [first]:
        await im.join_chan(client, chan)
        await im.send_chan_message("s", chan, "one")
        async with devices(cluster, im, client, [0, 1]) as later:
            await im.send_chan_message("s", chan, "two")
            assert [await first.recv() for _ in range(2)] == ["one", "two"]
            for socket in later:
                assert await socket.recv() == "two"
        await im.send_chan_message("s", chan, "three")
        assert await first.recv() == "three"


async def test_a_client_that_goes_offline_leaves_its_channels(cluster, im):
    client, chan = new_name(), new_name("room")
    async with devices(cluster, im, client, [0]):
        await im.join_chan(client, chan)
    assert await im.has_online(client), "in grace"
    assert await im.get_chan_online(chan) == 1

    async def gone() -> bool:
        return not await im.has_online(client)

    await eventually(gone, 15)
    assert await im.get_chan_online(chan) == 0 and (chan, 0) not in await im.get_chan_list()
    async with devices(cluster, im, client, [0]) as sockets:
        await im.send_chan_message("s", chan, "not any more")
        await nothing_before(sockets, im, client)


async def test_events_carry_the_first_and_the_last_sockets_metadata(cluster, im):
    client = new_name()
    events: list[tuple[str, str]] = []

    def mine(kind: str) -> Callable[[str, str], None]:
        def callback(who: str, metadata: str) -> None:
            if who == client:
                events.append((kind, metadata))

        return callback

    async with await im.event_bus(mine("on"), mine("off")):
        async with connected(cluster.servers[0], im, client, metadata="first\n\x00é"):
            async with connected(cluster.servers[1], im, client, metadata="second"):
                pass
            await asyncio.sleep(0.1)
            async with connected(cluster.servers[2], im, client, metadata="x" * 4096):
                pass
        async with connected(cluster.servers[0], im, client, metadata="back in grace"):
            pass
        await eventually(lambda: len(events) == 2, 15)
        assert events == [("on", "first\n\x00é"), ("off", "back in grace")]
        async with connected(cluster.servers[0], im, client, metadata="third"):
            await im.disconnect(client)
        await eventually(lambda: len(events) == 4, 15)
        assert events[2:] == [("on", "third"), ("off", "third")]
