# maxmemory is reached: what would add is refused in words, what keeps presence true goes on.
# Redis has no memory to give, so whatever a server must still write there is small and bounded.

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from imhelper import ImHelper, RedisUnavailableError
from imhelper.core import keys
from tests.support.cluster import connected
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually


def beats(redis: RedisServer) -> dict[bytes, int]:
    with redis.client() as client:
        leases: Any = client.hgetall(keys.servers("im"))
    return {name: int(lease.split(b"\n")[1]) for name, lease in leases.items()}


async def test_full_memory_ends_sends_and_nothing_else(redis_server, spawn_imservers):
    first, second, dead = await asyncio.to_thread(
        spawn_imservers, 3, redis_server.url, IM_LEASE_SECONDS=2, IM_GRACE_SECONDS=1
    )
    events: list[tuple[str, str, str]] = []
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        for group in (None, "g"):
            subscription = await im.event_bus(
                lambda c, m, group=group: events.append((str(group), "on", c)),  # type: ignore[misc]
                lambda c, m, group=group: events.append((str(group), "off", c)),  # type: ignore[misc]
                group=group,
            )
            await stack.enter_async_context(subscription)
        stays = await stack.enter_async_context(connected(first, im, "stays", envelope=True))
        plain = await stack.enter_async_context(connected(second, im, "plain"))
        goes = await stack.enter_async_context(connected(second, im, "goes"))
        await stack.enter_async_context(connected(dead, im, "crashed"))
        pos = (await stays.recv_kind("hello"))["pos"]
        await im.join_chan("goes", "room")
        boots = redis_server.command("SMEMBERS", f"{keys.group_tag('im', 0)}:boots")
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        for refused in (
            im.send_message("x", ["stays", "plain"], "refused"),
            im.send_chan_message("x", "room", "refused"),
            im.join_chan("stays", "room"),
            im.prev_connect_server("stays"),
        ):
            with pytest.raises(RedisUnavailableError, match="out of memory"):
                await refused
        # Leases are renewed meanwhile, presence stays true: who goes is offline, and a dead server is taken back.
        seen = beats(redis_server)
        await goes.raw.close()
        dead.kill()

        async def both_gone() -> bool:
            return sorted(await im.get_client_list_by_online()) == ["plain", "stays"]

        await eventually(both_gone, 20)
        assert all(beats(redis_server)[name] > seen[name] for name in (b"s0", b"s1"))
        assert await im.get_chan_list() == []
        expected = {(g, kind, c) for g in ("None", "g") for kind in ("on", "off") for c in ("goes", "crashed")}
        await eventually(lambda: expected <= set(events), what="events, to members of a group too")
        for server in (first, second):
            assert server.metrics()["imserver_redis_up"] == 1 and server.admin_get("/readyz")[0] == 200
        await stays.send_json({"t": "ping"})
        assert await stays.recv_json() == {"t": "pong", "pos": pos}
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
        await im.send_message("x", ["stays", "plain"], "accepted", receipt=True)
        assert (await stays.recv_json())["data"] == await plain.recv() == "accepted"
        async with connected(first, im, "goes"):
            await eventually(lambda: events.count(("g", "on", "goes")) == 2)
        assert set(redis_server.command("SMEMBERS", f"{keys.group_tag('im', 0)}:boots")) < set(boots)
        assert first.running and second.running
        assert sum(s.metrics()["imserver_gaps_total"] for s in (first, second)) == 0
