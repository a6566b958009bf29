# Leases and reclaim with real processes: who dies is taken back once, who lives is never fenced.
# The frozen wakes to an end that changes nothing.

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from imhelper import ImHelper
from imhelper.core import keys
from tests.support.cluster import connected, url_on
from tests.support.imserver import ImServer
from tests.support.waiting import eventually
from tests.support.ws import open_socket

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
TAG = keys.group_tag("im", 0)


class Bus:
    """What the event bus said, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def of(self, client: str) -> list[str]:
        return [kind for kind, name, _ in self.events if name == client]


@asynccontextmanager
async def listening(im: ImHelper):
    bus = Bus()
    subscription = await im.event_bus(
        lambda client, meta: bus.events.append(("on", client, meta)),
        lambda client, meta: bus.events.append(("off", client, meta)),
    )
    async with subscription:
        yield bus


async def online(im: ImHelper) -> list[str]:
    return sorted(await im.get_client_list_by_online())


async def test_the_clients_of_a_killed_server_go_offline_once_after_grace(redis_server, spawn_imservers):
    dead, *rest = await asyncio.to_thread(
        spawn_imservers, 3, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=2, IM_SLOTS=16
    )
    async with ImHelper(redis_server.url) as im, listening(im) as bus, AsyncExitStack() as stack:
        names = [f"c{n}" for n in range(230)]  # more than a batch of the reclaim
        for name in names:
            await stack.enter_async_context(connected(dead, im, name, metadata=f"of {name}"))
        await stack.enter_async_context(connected(rest[0], im, "two sockets"))
        await stack.enter_async_context(connected(dead, im, "two sockets"))
        await im.join_chan("c0", "room")
        await im.join_chan("c1", "room")
        dead.kill()
        # Within grace: it was never offline, and is a member still.
        back = await stack.enter_async_context(connected(rest[1], im, "c0"))

        async def settled() -> bool:
            return await online(im) == ["c0", "two sockets"]

        await eventually(settled, 20)
        assert sum(s.metrics()["imserver_reclaims_total"] for s in rest) == len(names) + 1, "each socket once"
        assert await im.get_chan_client_list("room") == ["c0"] and await im.get_chan_online("room") == 1
        await im.send_chan_message("x", "room", "a member still")
        assert await back.recv() == "a member still"
        await eventually(lambda: len(bus.events) >= 2 * len(names), what="every event")
        assert bus.of("c0") == bus.of("two sockets") == ["on"]
        assert Counter(bus.events) == Counter(
            [(kind, name, f"of {name}") for name in names for kind in ("on", "off") if (kind, name) != ("off", "c0")]
            + [("on", "two sockets", "")]
        )
        assert redis_server.command("EXISTS", f"{TAG}:dying", f"{TAG}:grace", f"{TAG}:gm", f"{TAG}:gp") == 0


async def freeze_past_lease(server: ImServer, other: ImServer) -> None:
    server.freeze()
    before = other.metrics()["imserver_reclaims_total"]
    await eventually(lambda: other.metrics()["imserver_reclaims_total"] > before, 20, "a reclaim")


async def test_a_frozen_server_wakes_to_its_end_and_corrupts_nothing(redis_server, spawn_imservers):
    frozen, other = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=1
    )
    async with ImHelper(redis_server.url) as im, listening(im) as bus, AsyncExitStack() as stack:
        moved = await stack.enter_async_context(connected(frozen, im, "moved", envelope=True))
        gone = await stack.enter_async_context(connected(frozen, im, "gone"))
        await im.join_chan("gone", "room")
        pos = str((await moved.recv_kind("hello"))["pos"])
        late = await url_on(frozen, im, "late")
        await freeze_past_lease(frozen, other)
        again = await stack.enter_async_context(connected(other, im, "moved", envelope=True, since=pos))
        await again.recv_kind("hello")

        async def only_moved() -> bool:
            return await online(im) == ["moved"]

        await eventually(only_moved, 20)
        # Already in its ears when it wakes: a client that ends, and a handshake.
        gone.abort()
        handshake = asyncio.create_task(open_socket(late).__aenter__())
        await asyncio.sleep(0.2)
        frozen.thaw()
        assert (await moved.closed())[0] == 1012
        assert await frozen.wait_async() == 75
        with pytest.raises(Exception, match=r".*"):
            await handshake
        await im.send_message("x", "moved", "here")
        assert (await again.recv_kind("msg"))["data"] == "here"
        # Past lease and grace once more: nothing that it did on its way out comes up later.
        await asyncio.sleep(4)
        assert await online(im) == ["moved"]
        assert await im.get_chan_list() == []
        assert (bus.of("moved"), bus.of("gone"), bus.of("late")) == (["on"], ["on", "off"], [])
        assert len(redis_server.command("SMEMBERS", f"{TAG}:boots")) == 1


async def test_what_a_frozen_server_compares_when_it_wakes_records_nobody(redis_server, spawn_imservers):
    frozen, other = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=0
    )
    async with ImHelper(redis_server.url) as im, listening(im) as bus, connected(frozen, im, "al"):
        await freeze_past_lease(frozen, other)
        await eventually(lambda: bus.of("al") == ["on", "off"])
        # As after Redis has lost the mark as well as the lease: the server believes that it lives.
        redis_server.command("DEL", "{im}:fenced")
        frozen.thaw()
        assert await frozen.wait_async() == 75
        await asyncio.sleep(2)
        assert bus.of("al") == ["on", "off"] and await online(im) == []


async def test_a_server_that_is_fenced_while_it_drains_ends_at_once(redis_server, spawn_imservers):
    old, other = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=1, IM_DRAIN_TIMEOUT_SECONDS=3600
    )
    async with ImHelper(redis_server.url) as im, connected(old, im, "deaf", envelope=True) as deaf:
        old.terminate()
        await deaf.recv_kind("move")
        await freeze_past_lease(old, other)
        old.thaw()
        assert (await deaf.closed(20))[0] == 1012
        assert await old.wait_async() == 75


async def test_a_server_back_under_its_name_within_the_lease_leaves_no_ghosts(redis_server, spawn_imservers):
    server, other = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, IM_LEASE_SECONDS=60, IM_GRACE_SECONDS=2
    )
    async with ImHelper(redis_server.url) as im, listening(im) as bus, AsyncExitStack() as stack:
        for name in ("returns", "goes"):
            await stack.enter_async_context(connected(server, im, name))
        await stack.enter_async_context(connected(other, im, "elsewhere"))
        server.kill()
        await asyncio.to_thread(server.start)
        await stack.enter_async_context(connected(server, im, "returns"))

        async def settled() -> bool:
            return await online(im) == ["elsewhere", "returns"]

        await eventually(settled, 20)
        await eventually(lambda: bus.of("goes") == ["on", "off"])
        assert bus.of("returns") == bus.of("elsewhere") == ["on"]
        assert len(redis_server.command("SMEMBERS", f"{TAG}:boots")) == 2


async def test_an_outage_of_redis_longer_than_the_lease_fences_nobody(redis_server, spawn_imservers):
    servers = await asyncio.to_thread(spawn_imservers, 3, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=1)
    async with ImHelper(redis_server.url, timeout=20) as im, listening(im) as bus, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(s, im, s.name)) for s in servers]
        boots = redis_server.command("SMEMBERS", f"{TAG}:boots")
        for turn, away in enumerate((redis_server.kill, redis_server.freeze)):
            away()
            await asyncio.sleep(2.5)
            if turn == 0:
                await asyncio.to_thread(redis_server.start)
            else:
                redis_server.thaw()
            await im.send_message("x", [s.name for s in servers], f"turn {turn}")
            assert [await socket.recv(20) for socket in sockets] == [f"turn {turn}"] * 3
            await asyncio.sleep(1.5)
        assert all(s.running for s in servers) and await online(im) == [s.name for s in servers]
        assert sorted(bus.events) == [("on", s.name, "") for s in servers]
        assert redis_server.command("SMEMBERS", f"{TAG}:boots") == boots
        assert sum(s.metrics()["imserver_reclaims_total"] for s in servers) == 0


async def test_when_all_are_dead_presence_is_true_again_once_one_starts(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=1)
    async with ImHelper(redis_server.url) as im, listening(im) as bus, connected(server, im, "al"):
        server.kill()
        await asyncio.sleep(3)
        assert await online(im) == ["al"], "nobody is there to say otherwise"
        [other] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=1, IM_GRACE_SECONDS=1)

        async def nobody() -> bool:
            return await online(im) == []

        await eventually(nobody, 20)
        await eventually(lambda: bus.of("al") == ["on", "off"])
        assert [s.name for s in await im.servers()] == [other.name]
