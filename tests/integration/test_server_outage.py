# Redis restarts or loses everything while clients are connected: what each of them sees, and what is true afterwards.
# Failures of servers, frozen ones and failovers are the subject of test_server_failures_*.

import asyncio

import pytest

from imhelper import ImHelper, RedisUnavailableError
from tests.support.cluster import connected, url_on
from tests.support.raw import raw, request
from tests.support.waiting import eventually


async def test_a_restart_of_redis_costs_nothing_that_it_had_accepted(redis_server, spawn_imservers):
    servers = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_GRACE_SECONDS=2)
    events: list[str] = []
    async with (
        ImHelper(redis_server.url, timeout=15) as im,
        await im.event_bus(lambda c, m: events.append(f"on {c}"), lambda c, m: events.append(f"off {c}")),
        connected(servers[0], im, "e", envelope=True) as envelope,
        connected(servers[1], im, "p") as plain,
    ):
        start = (await envelope.recv_kind("hello"))["pos"]
        for name in ("e", "p"):
            await im.join_chan(name, "room")
        await im.send_chan_message("e", "room", "before")
        await asyncio.to_thread(redis_server.restart)
        await im.send_chan_message("e", "room", "after")
        await im.send_message("e", "p", "receipt?", receipt=True)
        assert [await plain.recv(20) for _ in range(3)] == ["before", "after", "receipt?"]
        got = [await envelope.recv_json(20) for _ in range(3)]
        assert [g.get("data", g.get("status")) for g in got] == ["before", "after", "delivered"]
        await asyncio.sleep(3)
        assert sorted(events) == ["on e", "on p"]
        async with connected(servers[1], im, "e", envelope=True, since=str(start)) as again:
            assert (await again.recv_kind("hello"))["recovered"] is True
            assert (await again.recv_json())["data"] == "before"
    for server in servers:
        assert server.metrics()["imserver_gaps_total"] == 0


@pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
async def test_while_redis_is_away_sockets_stay_and_newcomers_are_told_to_come_again(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=2)
    async with (
        ImHelper(redis_server.url, timeout=1) as im,
        connected(server, im, "a", envelope=True) as socket,
        connected(server, im, "leaves") as leaves,
    ):
        pos = (await socket.recv_kind("hello"))["pos"]
        url = await url_on(server, im, "b")
        redis_server.kill()
        with pytest.raises(RedisUnavailableError):
            await im.send_message("s", "a", "lost?")
        await eventually(lambda: server.metrics()["imserver_redis_up"] == 0, 15)
        assert server.admin_get("/readyz")[0] == 200, "the other servers can't reach it either"
        async with raw(server.port) as connection:
            await connection.send(request(url[url.index("/ws") :]))
            answer = await connection.response()
            assert answer.status == 503 and int(answer.fields["retry-after"]) > 0
        await socket.send_json({"t": "ping"})
        assert await socket.recv_json() == {"t": "pong", "pos": pos}
        await leaves.raw.close()
        await asyncio.to_thread(redis_server.start)
        await eventually(lambda: server.metrics()["imserver_redis_up"] == 1, 15)
        await im.send_message("s", "a", "back")
        assert (await socket.recv_json())["data"] == "back"

        async def who() -> bool:
            return await im.get_client_list_by_online() == ["a"]

        await eventually(who, 15, "the one that left meanwhile is offline")
        async with connected(server, im, "b"):
            pass


async def test_after_a_wipe_sockets_are_registered_again_without_events(redis_server, spawn_imservers):
    servers = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_GRACE_SECONDS=2)
    async with (
        ImHelper(redis_server.url, timeout=15) as im,
        connected(servers[0], im, "e", envelope=True) as envelope,
        connected(servers[1], im, "p", metadata="of p") as plain,
        connected(servers[0], im, "q") as other,
    ):
        start = (await envelope.recv_kind("hello"))["pos"]
        for name in ("e", "p", "q"):
            await im.join_chan(name, "room")
        for n in range(20):
            await im.send_chan_message("e", "room", n)
        assert [await plain.recv() for _ in range(20)] == [await other.recv() for _ in range(20)]
        epoch = (await im.topology()).epoch
        redis_server.command("FLUSHALL")
        code, reason = await envelope.closed(15)
        assert code == 4002 and reason

        async def restored() -> bool:
            found = sorted(await im.get_chan_client_list("room"))
            return {"p", "q"} <= set(found) and {"p", "q"} <= set(await im.get_client_list_by_online())

        await eventually(restored, 20)
        raw_epoch = await eventually(lambda: redis_server.command("HGET", "{im}:topo", "epoch"), 20)
        assert int(raw_epoch) > epoch
        await eventually(lambda: all(s.ready() for s in servers), 15)
        events: list[tuple[str, str]] = []
        async with await im.event_bus(lambda c, m: events.append(("on", c)), lambda c, m: events.append((m, c))):
            assert redis_server.command("XLEN", "{im:0}:ev") == 0, "nothing happened to the clients"
            await im.send_chan_message("p", "room", "new")
            assert await plain.recv() == await other.recv() == "new"
            async with connected(servers[1], im, "e", envelope=True, since=str(start)) as again:
                assert (await again.recv_kind("hello"))["recovered"] is False
                await im.send_message("s", "e", "reloaded")
                assert (await again.recv_kind("msg"))["data"] == "reloaded"
            await plain.raw.close()
            await eventually(lambda: ("of p", "p") in events, 15)
        # A plain client that comes back after all this is a member still, in a replay too.
        await other.raw.close()
        await im.send_chan_message("e", "room", "missed")
        async with connected(servers[1], im, "q") as back:
            assert await back.recv() == "missed"
