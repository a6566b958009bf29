# `since`: what was missed comes, in order, before anything new; what can't be had is told, never passed over.
# Positions are opaque to clients, so the forged ones here are what a client must not do and a server must survive.

import asyncio
from contextlib import AsyncExitStack

import pytest

from imhelper import ImHelper
from imhelper.core.slots import slot_of
from tests.support.cluster import connected, new_name, url_on
from tests.support.raw import TEXT, raw_socket
from tests.support.waiting import eventually
from tests.support.ws import Socket


async def hello(socket: Socket) -> dict[str, object]:
    found: dict[str, object] = await socket.recv_json()
    assert found["t"] == "hello"
    return found


async def pos_of(socket: Socket) -> str:
    """Where the socket is now."""
    await socket.send_json({"t": "ping"})
    return str((await socket.recv_kind("pong"))["pos"])


async def test_what_was_missed_comes_in_order_before_anything_new(cluster, im):
    client, chan = new_name(), new_name("room")
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        await hello(socket)
        await im.join_chan(client, chan)
        await im.send_message("s", client, "seen")
        await socket.recv_json()
        pos = await pos_of(socket)
    for n in range(0, 200, 2):
        await im.send_message("s", client, n)
        await im.send_chan_message("s", chan, n + 1)
    async with connected(cluster.servers[1], im, client, envelope=True, since=pos) as socket:
        await im.send_message("s", client, "new")
        greeting = await hello(socket)
        assert (greeting["recovered"], greeting["pos"]) == (True, pos)
        got = [await socket.recv_json() for _ in range(201)]
    assert [m["data"] for m in got] == [*range(200), "new"]
    positions = [tuple(map(int, m["pos"].partition(".")[2].split("-"))) for m in got]
    assert positions == sorted(positions)
    # Ask twice, from another server, and from the middle: the same comes again.
    for server, at in ((cluster.servers[1], 0), (cluster.servers[2], 0), (cluster.servers[0], 100)):
        since = pos if at == 0 else got[at - 1]["pos"]
        async with connected(server, im, client, envelope=True, since=since) as socket:
            assert (await hello(socket))["recovered"]
            assert [await socket.recv_json() for _ in range(201 - at)] == got[at:]


async def test_a_quiet_clients_position_is_recovered_though_nothing_came(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = (await hello(socket))["pos"]
        assert await pos_of(socket) == start
    for pos in (start, start):
        async with connected(cluster.servers[1], im, client, envelope=True, since=str(pos)) as socket:
            greeting = await hello(socket)
            assert (greeting["recovered"], greeting["pos"]) == (True, start)


async def test_a_replay_keeps_to_the_memberships_of_then(cluster, im):
    client, chan = new_name(), new_name("room")
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = str((await hello(socket))["pos"])

        async def say(what: str) -> None:
            await im.send_chan_message("s", chan, what)

        await say("not joined")
        await im.join_chan(client, chan)
        await say("1")
        await im.leave_chan(client, chan)
        await say("left")
        await im.join_chan(client, chan)
        await say("2")
        await im.clear_chan_client(chan)
        await say("cleared")
        await im.join_chan(client, chan)
        await say("3")
        assert [(await socket.recv_json())["data"] for _ in range(3)] == ["1", "2", "3"]
    async with connected(cluster.servers[1], im, client, envelope=True, since=start) as socket:
        assert (await hello(socket))["recovered"]
        assert [(await socket.recv_json())["data"] for _ in range(3)] == ["1", "2", "3"]
        await say("4")
        assert (await socket.recv_json())["data"] == "4"


async def test_memberships_change_while_a_replay_is_under_way(cluster, im):
    client, chan, payload = new_name(), new_name("room"), "x" * 60_000
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = str((await hello(socket))["pos"])
        for n in range(150):
            await im.send_message("s", client, f"{n} {payload}")
    url = f"{await url_on(cluster.servers[1], im, client)}&since={start}"
    async with raw_socket(url, envelope=True, receive_buffer=4096) as slow:
        # It does not read: its replay is held up in the middle. Now its membership changes, again and again.
        await eventually(lambda: cluster.servers[1].metrics()["imserver_write_buffer_bytes"] > 100_000)
        for n in range(3):
            await im.join_chan(client, chan)
            await im.send_chan_message("s", chan, f"in {n}")
            await im.leave_chan(client, chan)
            await im.send_chan_message("s", chan, f"out {n}")
        await im.join_chan(client, chan)
        await im.send_chan_message("s", chan, "at last")
        got: list[str] = []
        while not got or "at last" not in got[-1]:
            opcode, text = await slow.frame()
            assert opcode == TEXT
            got.append(text.decode())
        assert len(got) == 1 + 150 + 4
        assert all(f'"data":"{n} x' in got[1 + n] for n in range(150))
        assert [f"in {n}" in got[151 + n] for n in range(3)] == [True] * 3
        await im.send_chan_message("s", chan, "live")
        assert b'"live"' in (await slow.frame()).payload


async def test_a_position_that_makes_no_sense_gets_what_is_there(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        pos = str((await hello(socket))["pos"])
        await im.send_message("s", client, "there")
        await socket.recv_json()
    incarnation, _, stream_id = pos.partition(".")
    senseless = [
        *(
            "",
            "x",
            "0",
            "0.0-0",
            "-1.5-5",
            "9" * 5000,
            "1.2-3",
            pos + "0" * 30,
            f"{pos}é",
            "null",
            pos[:-3],
            " ",
            "%00",
        ),
        *(
            f"{int(incarnation) + 5}.{stream_id}",
            f"{int(incarnation) - 5}.{stream_id}",
            f"{incarnation}.99999999999999-7",
        ),
    ]
    for since in senseless:
        async with connected(cluster.servers[1], im, client, envelope=True, since=since) as socket:
            assert (await hello(socket))["recovered"] is False, since
            frame = await socket.recv_json()
            while frame["data"] != "there":
                frame = await socket.recv_json()
            await im.send_message("s", client, "new")
            assert (await socket.recv_json())["data"] == "new"
            await im.send_message("s", client, "there")
            await socket.recv_json()


async def test_a_replay_far_larger_than_the_buffer_waits_for_its_reader(cluster, im):
    client, payload = new_name(), "y" * 60_000
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = str((await hello(socket))["pos"])
        await asyncio.gather(*(im.send_message("s", client, f"{n:03} {payload}") for n in range(200)))
    before = cluster.servers[1].metrics()
    url = f"{await url_on(cluster.servers[1], im, client)}&since={start}"
    async with (
        raw_socket(url, envelope=True, receive_buffer=4096) as slow,
        connected(cluster.servers[1], im, client) as fast,
    ):
        assert b'"recovered":true' in (await slow.frame()).payload
        await eventually(lambda: cluster.servers[1].metrics()["imserver_write_buffer_bytes"] > 100_000)
        await im.send_message("s", client, "meanwhile")
        assert await fast.recv() == "meanwhile", "nobody waits for the slow one"
        seen = [(await slow.frame()).payload for _ in range(201)]
        assert cluster.servers[1].metrics()["imserver_slow_consumers_total"] == before["imserver_slow_consumers_total"]
    assert len({s[s.index(b'"data":"') + 8 :][:3] for s in seen[:200]}) == 200 and b'"meanwhile"' in seen[200]


async def test_one_that_dies_in_mid_replay_resumes_where_it_was(cluster, im):
    client, payload = new_name(), "z" * 20_000
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        pos = str((await hello(socket))["pos"])
        for n in range(120):
            await im.send_message("s", client, f"{n} {payload}")
    got: list[int] = []
    round_trip = 0
    while len(got) < 120:
        async with connected(cluster.servers[round_trip % 3], im, client, envelope=True, since=pos) as socket:
            assert (await hello(socket))["recovered"] is True
            for _ in range(min(37, 120 - len(got))):
                message = await socket.recv_json()
                got.append(int(message["data"].partition(" ")[0]))
                pos = message["pos"]
            socket.abort()
        round_trip += 1
    assert got == list(range(120))


async def test_many_resume_at_once(cluster, im):
    clients, chan = [new_name() for _ in range(30)], new_name("room")
    starts = {}
    async with AsyncExitStack() as stack:
        # Their first sockets stay, so that they are members for as long as it takes.
        for client in clients:
            socket = await stack.enter_async_context(connected(cluster.servers[0], im, client, envelope=True))
            starts[client] = str((await hello(socket))["pos"])
            await im.join_chan(client, chan)
        for n in range(50):
            await im.send_chan_message("s", chan, n)

        async def resume(client: str) -> list[object]:
            async with connected(cluster.servers[1], im, client, envelope=True, since=starts[client]) as socket:
                assert (await hello(socket))["recovered"]
                return [(await socket.recv_json())["data"] for _ in range(50)]

        assert await asyncio.gather(*map(resume, clients)) == [list(range(50))] * 30


async def test_trimmed_history_is_told_and_what_is_left_comes(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_RETAIN_ENTRIES=100, IM_GRACE_SECONDS=1)
    async with ImHelper(redis_server.url) as im:
        async with connected(server, im, "a", envelope=True) as socket:
            start = str((await hello(socket))["pos"])
        for n in range(150):
            await im.send_message("s", "a", n)
        for since in (start, "nonsense"):
            async with connected(server, im, "a", envelope=True, since=since) as socket:
                greeting = await hello(socket)
                assert greeting["recovered"] is False
                assert [(await socket.recv_json())["data"] for _ in range(100)] == list(range(50, 150))
        # From its own hello on, nothing is missing: so a client never loses more than once by one trim.
        async with connected(server, im, "a", envelope=True, since=str(greeting["pos"])) as socket:
            assert (await hello(socket))["recovered"] is True
        # A replay that is overtaken by the trimming can't go on, and says so.
        async with connected(server, im, "b", envelope=True) as socket:
            start = str((await hello(socket))["pos"])
            for _ in range(99):
                await im.send_message("s", "b", "x" * 60_000)
        url = f"{await url_on(server, im, 'b')}&since={start}"
        async with raw_socket(url, envelope=True, receive_buffer=4096, limit=1024) as slow:
            assert b'"recovered":true' in (await slow.frame()).payload
            await eventually(lambda: server.metrics()["imserver_write_buffer_bytes"] > 100_000)
            for _ in range(100):
                await im.send_message("s", "b", "new")
            assert (await slow.until_close(20)).code == 4002


async def test_what_is_older_than_the_window_is_gone_though_nothing_new_comes(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_RETAIN_SECONDS=2, IM_GRACE_SECONDS=1, IM_SLOTS=16
    )
    async with ImHelper(redis_server.url) as im, connected(server, im, "a", envelope=True) as live:
        start = str((await hello(live))["pos"])
        for n in range(3):
            await im.send_message("s", "a", n)
        last = [(await live.recv_json())["pos"] for _ in range(3)][-1]

        async def no_entries() -> bool:
            return not any([await im._link.command(0, "XLEN", f"{{im:0}}:log:{slot}") for slot in range(16)])

        await eventually(no_entries, 15)
        async with connected(server, im, "a", envelope=True, since=start) as socket:
            assert (await hello(socket))["recovered"] is False
        async with connected(server, im, "a", envelope=True, since=last) as socket:
            assert (await hello(socket))["recovered"] is True, "nothing is missing after it"
            await im.send_message("s", "a", "new")
            assert (await socket.recv_json())["data"] == (await live.recv_json())["data"] == "new"
    assert server.metrics()["imserver_gaps_total"] == 0


async def test_plain_mode_takes_since_too(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = str((await hello(socket))["pos"])
        await im.send_message("s", client, "missed")
    async with connected(cluster.servers[1], im, client, since=start) as plain:
        assert await plain.recv() == "missed"


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
async def test_a_slow_consumer_is_closed_and_resumes_with_nothing_missing(cluster, im, reads):
    client, other = new_name("slow"), new_name("other")
    server = cluster.servers[2]
    payload = "s" * 60_000
    before = server.metrics()["imserver_slow_consumers_total"]
    got: list[int] = []
    async with connected(server, im, other) as fine:
        async with raw_socket(await url_on(server, im, client), envelope=True, receive_buffer=4096, limit=1024) as slow:
            pos = (await slow.frame()).payload.decode().partition('"pos":"')[2].partition('"')[0]
            for n in range(200):
                await im.send_message("s", [client, other], f"{n} {payload}")
                assert (await fine.recv()).startswith(f"{n} ")  # type: ignore[arg-type]
                if server.metrics()["imserver_slow_consumers_total"] > before:
                    break
            assert server.metrics()["imserver_slow_consumers_total"] == before + 1
            if reads:
                while (frame := await slow.frame()).opcode == TEXT:
                    text = frame.payload.decode()
                    got.append(int(text.partition('"data":"')[2].partition(" ")[0]))
                    pos = text.partition('"pos":"')[2].partition('"')[0]
                assert frame.code == 4001
        async with connected(server, im, client, envelope=True, since=pos) as again:
            assert (await hello(again))["recovered"] is True
            while len(got) <= n:
                got.append(int((await again.recv_json())["data"].partition(" ")[0]))
    assert got == list(range(n + 1))


async def test_one_that_asks_twice_with_the_same_position_gets_all_on_both(cluster, im):
    client = new_name()
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        start = str((await hello(socket))["pos"])
    for n in range(100):
        await im.send_message("s", client, n)

    async def resume(at: int) -> list[object]:
        async with connected(cluster.servers[at], im, client, envelope=True, since=start) as socket:
            assert (await hello(socket))["recovered"] is True
            return [(await socket.recv_json())["data"] for _ in range(101)]

    both = [asyncio.create_task(resume(at)) for at in (0, 1)]

    async def two_sockets() -> bool:
        found: int = await im._link.command(0, "HLEN", f"{{im:0}}:sk:{client}")
        return found == 2

    await eventually(two_sockets)
    await im.send_message("s", client, "to both")
    assert await asyncio.gather(*both) == [[*range(100), "to both"]] * 2


async def test_a_quiet_client_that_only_pings_is_recovered_long_after_the_window(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_RETAIN_SECONDS=1, IM_GRACE_SECONDS=0.5, IM_SLOTS=16
    )
    busy = next(name for name in map(str, range(1000)) if slot_of(name, 16) == slot_of("quiet", 16))
    async with ImHelper(redis_server.url) as im, connected(server, im, "quiet", envelope=True) as socket:
        first = pos = str((await hello(socket))["pos"])
        # Its own last message is long gone from the log, while others of its slot get theirs.
        for n in range(8):
            await im.send_message("s", busy, n)
            await asyncio.sleep(0.4)
            pos = await pos_of(socket)
        async with connected(server, im, "quiet", envelope=True, since=pos) as again:
            greeting = await hello(again)
            assert (greeting["recovered"], greeting["pos"]) == (True, pos)
        async with connected(server, im, "quiet", envelope=True, since=first) as again:
            assert (await hello(again))["recovered"] is False, "without its pings it would have been too late"
    assert pos != first
