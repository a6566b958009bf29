# The real helper with several servers, tokens, sends over Redis failures, a Redis Cluster, forks and event loops.
# Servers are made of scripts only (`Boot`), so that their leases and states are in the test's hands.

import asyncio
import json
import logging
import os
from typing import Any

import pytest

import imhelper
import imhelper.sync
from imhelper import ImHelper
from imhelper.core import keys
from imhelper.core.slots import slot_of
from imhelper.core.topology import Limits, ServerEntry
from tests.integration.test_helper_backend_aio import in_child
from tests.integration.test_helper_backend_ha import redis_cluster
from tests.support.boot import LIMITS, Boot
from tests.support.waiting import eventually

__all__ = ["redis_cluster"]
pytestmark = pytest.mark.redis5


def serve(url: str, *names: str, limits: Limits = LIMITS, prefix: str = "im") -> list[Boot]:
    """Servers of a cluster, all in the topology."""
    boots = [Boot(url, prefix, name, limits) for name in names]
    boots[0].publish(*(ServerEntry(b.name, b.url) for b in boots))
    return boots


def client_of(topology: imhelper.Topology, name: str) -> str:
    """A client that the table gives to a server."""
    ids = (f"client-{i}" for i in range(10_000))
    return next(c for c in ids if (owner := topology.server_of(c)) is not None and owner.name == name)


# -- choosing a server ----------------------------------------------------------------------------------------------


async def test_the_table_decides_and_avoid_gives_another(redis_server):
    boots = await asyncio.to_thread(serve, redis_server.url, "s0", "s1", "s2")
    async with ImHelper(redis_server.url) as helper:
        topology = await helper.topology()
        for client in (f"c{i}" for i in range(50)):
            owner = topology.server_of(client)
            url = await helper.prev_connect_server(client)
            assert owner is not None and url.startswith(owner.url)
            for avoid in (owner.name, owner.url, url):
                others = {(await helper.prev_connect_server(client, avoid=avoid)).split("?")[0] for _ in range(3)}
                assert len(others) == 1 and others < {b.url for b in boots} - {owner.url}


async def test_a_channel_is_cleared_in_batches_that_hold_up_nobody(redis_server):
    key = keys.chan_members(keys.group_tag("im", 0), "big")
    # So few numbers that Redis keeps them together, and gives all of them in one page.
    redis_server.command("SADD", key, *range(450, 900))
    async with ImHelper(redis_server.url) as helper:
        sizes = [len(batch) async for batch in helper._scan.batches(0, key)]
    assert sizes == [200, 200, 50]


async def test_a_draining_or_dead_server_is_never_given(redis_server):
    limits = Limits(lease_seconds=1)
    boots = await asyncio.to_thread(serve, redis_server.url, "s0", "s1", "s2", limits=limits)

    def beat(*alive: Boot, **report: Any) -> None:
        for boot in alive:
            boot.beat(**report)

    async with ImHelper(redis_server.url) as helper:
        topology = await helper.topology()
        client = client_of(topology, "s0")
        await asyncio.to_thread(beat, *boots)
        assert (await helper.prev_connect_server(client)).startswith(boots[0].url)

        async def given_elsewhere() -> bool:
            await asyncio.to_thread(beat, *boots[1:])
            return not (await helper.prev_connect_server(client)).startswith(boots[0].url)

        await eventually(given_elsewhere)
        await asyncio.to_thread(beat, boots[1], state="draining")

        async def only_the_third() -> bool:
            await asyncio.to_thread(beat, boots[2])
            await asyncio.to_thread(beat, boots[1], state="draining")
            urls = {(await helper.prev_connect_server(f"c{i}")).split("?")[0] for i in range(30)}
            return urls == {boots[2].url}

        await eventually(only_the_third)

        async def told() -> bool:
            states = {s.name: s.state for s in await helper.servers()}
            return states == {"s0": "active", "s1": "draining", "s2": "active"}

        await eventually(told)

        async def no_server() -> bool:
            try:
                await helper.prev_connect_server(client)
            except imhelper.NoServerError:
                return True
            return False

        await eventually(no_server)

        async def back() -> bool:
            await asyncio.to_thread(beat, boots[0])
            return not await no_server() and (await helper.prev_connect_server(client)).startswith(boots[0].url)

        await eventually(back)


async def test_a_new_topology_is_followed_within_two_seconds_without_restart(redis_server):
    [first] = await asyncio.to_thread(serve, redis_server.url, "s0")
    async with ImHelper(redis_server.url) as helper:
        assert (await helper.prev_connect_server("ann")).startswith(first.url)
        second = await asyncio.to_thread(Boot, redis_server.url, "im", "s1")
        await asyncio.to_thread(second.publish, ServerEntry("s1", second.url))

        async def moved() -> bool:
            return (await helper.prev_connect_server("ann")).startswith(second.url)

        await eventually(moved, 2.5)


async def test_without_a_topology(redis_server):
    async with ImHelper(redis_server.url) as helper:
        for call in (
            helper.prev_connect_server("ann"),
            helper.send_message("ann", "bob", "m"),
            helper.send_chan_message("ann", "c", "m"),
            helper.topology(),
        ):
            with pytest.raises(imhelper.NoServerError, match="'im'"):
                await call
        assert await helper.has_online("ann") is False
        assert await helper.join_chan("ann", "c") is False
        assert (await helper.leave_chan("ann", "c"), await helper.clear_chan_client("c")) == (0, 0)
        assert (await helper.get_chan_list(), await helper.get_client_list_by_online()) == ([], [])
        assert (await helper.get_online_count(), await helper.get_chan_online("c"), await helper.disconnect("a")) == (
            0,
            0,
            0,
        )
        assert (await helper.servers(), await helper.get_chan_list_by_client_id("ann")) == ([], [])
        seen: list[str] = []
        async with await helper.event_bus(lambda c, m: seen.append(c), lambda c, m: None):
            [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")

            async def there() -> bool:
                try:
                    return bool(await helper.prev_connect_server("ann"))
                except imhelper.NoServerError:
                    return False

            await eventually(there)
            await asyncio.to_thread(boot.connect, await helper.prev_connect_server("ann"))
            await eventually(lambda: seen == ["ann"])


async def test_a_foreign_format_is_told(redis_server):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    record = json.loads(boot.link.command(None, "HGET", keys.topology("im"), "record"))
    boot.link.command(None, "HSET", keys.topology("im"), "record", json.dumps({**record, "format": 9}), "epoch", "99")
    async with ImHelper(redis_server.url) as helper:
        with pytest.raises(imhelper.TopologyError, match=r"format 9.*format 1"):
            await helper.prev_connect_server("ann")


async def test_a_server_url_with_a_query_keeps_it(redis_server):
    boot = await asyncio.to_thread(Boot, redis_server.url, "im")
    await asyncio.to_thread(boot.publish, ServerEntry("s0", "wss://h/p/ws?region=eu"))
    async with ImHelper(redis_server.url) as helper:
        assert (await helper.prev_connect_server("ann")).startswith("wss://h/p/ws?region=eu&token=")


# -- tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_works_once_until_it_expires_or_the_client_is_disconnected(redis_server):
    first, second = await asyncio.to_thread(serve, redis_server.url, "s0", "s1")
    async with ImHelper(redis_server.url, token_ttl=0.3) as brief, ImHelper(redis_server.url) as helper:
        url = await helper.prev_connect_server("ann")
        assert second.connect(url) == "ann", "any server takes it"
        assert first.connect(url) == "unknown"
        before = await helper.prev_connect_server("ann")
        assert await helper.disconnect("ann") == 1
        assert first.connect(before) == "unknown"
        assert first.connect(await helper.prev_connect_server("ann")) == "ann"
        expired = await brief.prev_connect_server("ann")
        await asyncio.sleep(0.4)
        assert first.connect(expired) == "unknown"


# -- sends ----------------------------------------------------------------------------------------------------------


async def test_a_send_is_one_round_trip(redis_server):
    await asyncio.to_thread(serve, redis_server.url, "s0")
    async with ImHelper(redis_server.url) as helper:
        await helper.send_message("ann", "bob", "warm")
        await asyncio.to_thread(redis_server.command, "CONFIG", "RESETSTAT")
        await helper.send_message("ann", [f"c{i}" for i in range(50)], "m")
        stats = str(await asyncio.to_thread(redis_server.command, "INFO", "commandstats"))
        assert "'cmdstat_evalsha': {'calls': 1," in stats or "'cmdstat_evalsha': {'calls': 2," in stats


async def test_the_sender_among_the_receivers_gets_an_echo_only_with_a_second_socket(redis_server):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    async with ImHelper(redis_server.url) as helper:
        boot.connect(await helper.prev_connect_server("ann"))
        await helper.send_message("ann", ["ann", "bob"], "one")
        boot.connect(await helper.prev_connect_server("ann"))
        await helper.send_message("ann", ["ann", "bob"], "two")
        assert sorted((m[3], sorted(m[1])) for m in boot.sent()) == [("one", ["bob"]), ("two", ["ann", "bob"])]


async def test_full_memory_is_told_with_what_was_not_covered(spawn_redis):
    server = spawn_redis()
    [boot] = await asyncio.to_thread(serve, server.url, "s0")
    async with ImHelper(server.url) as helper:
        await helper.send_message("ann", "bob", "m")
        await asyncio.to_thread(server.command, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(imhelper.RedisUnavailableError, match="out of memory") as caught:
            await helper.send_message("ann", ["bob", "cat"], "m2")
        assert sorted(caught.value.uncovered) == ["bob", "cat"] and caught.value.message_id
        await asyncio.to_thread(server.command, "CONFIG", "SET", "maxmemory", "0")
        key = caught.value.idempotency_key
        assert await helper.send_message("ann", ["bob", "cat"], "m2", idempotency_key=key) == caught.value.message_id
    assert len(boot.sent()) == 2


async def test_messages_sent_over_a_killed_redis_arrive_once_each(redis_server):
    await asyncio.to_thread(redis_server.command, "CONFIG", "SET", "appendfsync", "always")
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    async with ImHelper(redis_server.url, timeout=20) as helper:
        await helper.send_message("ann", "bob", "first")
        stop = asyncio.Event()
        accepted: list[str] = []

        async def send(worker: int) -> None:
            n = 0
            while not stop.is_set():
                await helper.send_message("ann", f"r{worker}", f"{worker}.{n}")
                accepted.append(f"{worker}.{n}")
                n += 1

        senders = [asyncio.create_task(send(i)) for i in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(redis_server.kill_and_restart)
        count = len(accepted)
        await eventually(lambda: len(accepted) > count + 50)
        stop.set()
        await asyncio.gather(*senders)
    messages = [m[3] for m in boot.sent()]
    assert len(messages) == len(set(messages))
    assert set(accepted) <= set(messages)
    for worker in range(8):
        log = [e[b"p"].decode() for e in boot.log(slot_of(f"r{worker}", boot.slots)) if b"p" in e]
        mine = [int(text.split(".")[1]) for text in log if text.startswith(f"{worker}.")]
        assert mine == sorted(set(mine)), "in the order accepted, each once"


# -- a Redis Cluster ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["asyncio", "blocking"])
async def test_everything_works_on_a_redis_cluster(redis_cluster, form):
    url = redis_cluster[0].url.replace("redis", "redis+cluster", 1)
    [boot] = await asyncio.to_thread(serve, url, "s0")
    assert boot.groups == 16
    helper: Any = ImHelper(url) if form == "asyncio" else imhelper.sync.ImHelper(url)

    async def call(name: str, *args: Any, **options: Any) -> Any:
        method = getattr(helper, name)
        return await (method(*args, **options) if form == "asyncio" else asyncio.to_thread(method, *args, **options))

    names = [f"client-{i}" for i in range(64)]
    events: list[tuple[str, str]] = []
    grouped: list[tuple[str, str]] = []
    plain = await call("event_bus", lambda c, m: events.append(("on", c)), lambda c, m: events.append(("off", c)))
    member = await call(
        "event_bus", lambda c, m: grouped.append(("on", c)), lambda c, m: grouped.append(("off", c)), group="g"
    )
    for name in names:
        assert boot.connect(await call("prev_connect_server", name)) == name
        assert await call("join_chan", name, "all")
    assert sorted(await call("get_client_list_by_online")) == sorted(names)
    assert await call("get_online_count") == 64
    assert await call("get_chan_list") == [("all", 64)]
    assert sorted(await call("get_chan_client_list", "all")) == sorted(names)
    assert all((await call("has_online_many", names)).values())
    await call("send_message", "ann", names, "direct")
    await call("send_chan_message", "ann", "all", "chan")
    by_kind = {m[2]: m for m in boot.sent()}
    assert sorted(by_kind[None][1]) == sorted(names) and by_kind["all"][3] == "chan"
    touched = {slot_of(n, boot.slots) for n in names}
    assert sum(any(b"h" in e for e in boot.log(s)) for s in range(boot.slots)) == len(touched)
    assert await call("clear_chan_client", "all") == 64
    for name in names:
        assert await call("disconnect", name) == 1
    expected = {(kind, n) for kind in ("on", "off") for n in names}
    await eventually(lambda: set(events) == expected and set(grouped) == expected)
    assert len(events) == len(grouped) == 128
    for thing in (plain, member, helper):
        await (thing.close() if form == "asyncio" else asyncio.to_thread(thing.close))


# -- warnings, loops, forks -----------------------------------------------------------------------------------------


async def test_a_redis_that_may_evict_is_warned_about_once(spawn_redis, caplog):
    server = spawn_redis("--maxmemory-policy", "allkeys-lru")
    await asyncio.to_thread(serve, server.url, "s0")
    with caplog.at_level(logging.WARNING, logger="imhelper"):
        async with ImHelper(server.url) as helper:
            for _ in range(3):
                await helper.prev_connect_server("ann")
                await helper.topology()
    assert [r.getMessage() for r in caplog.records if "noeviction" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert "allkeys-lru" in caplog.records[0].getMessage()


async def test_where_info_is_forbidden_nothing_is_said(redis_server, caplog):
    await asyncio.to_thread(serve, redis_server.url, "s0")
    redis_server.command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-info", "-config")
    with caplog.at_level(logging.WARNING, logger="imhelper"):
        async with ImHelper(redis_server.url, username="narrow", password="pw") as helper:
            assert await helper.prev_connect_server("ann")
    assert not caplog.records


def test_a_subscription_left_in_another_event_loop_holds_nobody_up(redis_server):
    serve(redis_server.url, "s0")
    helper = ImHelper(redis_server.url)

    async def subscribe() -> None:
        await helper.event_bus(lambda c, m: None, lambda c, m: None, group="g")

    asyncio.run(subscribe())
    asyncio.run(helper.close())


def test_one_helper_in_several_event_loops(redis_server):
    serve(redis_server.url, "s0")
    helper = ImHelper(redis_server.url)
    urls = {asyncio.run(helper.prev_connect_server("ann")) for _ in range(3)}
    assert len(urls) == 3

    async def use_and_close() -> None:
        assert await helper.send_message("ann", "bob", "m")
        await helper.close()

    asyncio.run(use_and_close())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("used_before", [False, True])
def test_a_blocking_helper_made_before_a_fork_works_on_both_sides(redis_server, used_before):
    [boot] = serve(redis_server.url, "s0")
    with imhelper.sync.ImHelper(redis_server.url) as helper:
        if used_before:
            helper.send_message("parent", "bob", "before")

        def child() -> None:
            for i in range(20):
                helper.send_message("child", "bob", f"{os.getpid()}.{i}")

        assert in_child(child) == 0
        helper.send_message("parent", "bob", "after")
    assert len(boot.sent()) == 21 + used_before


async def test_thousands_of_concurrent_calls(redis_server):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    async with ImHelper(redis_server.url, timeout=60) as helper:
        urls = await asyncio.gather(*(helper.prev_connect_server(f"c{i}") for i in range(3000)))
        assert len(set(urls)) == 3000
        ids = await asyncio.gather(*(helper.send_message("ann", f"c{i}", str(i)) for i in range(3000)))
        assert len(set(ids)) == 3000
    sent = {m[3]: m[1] for m in boot.sent()}
    assert sent == {str(i): (f"c{i}",) for i in range(3000)}


async def test_tokens_and_passwords_are_in_no_log_and_no_repr(spawn_redis, caplog):
    server = spawn_redis("--requirepass", "hush-hush")
    boot = await asyncio.to_thread(Boot, server.url.replace("redis://", "redis://:hush-hush@"), "im")
    await asyncio.to_thread(boot.publish)
    with caplog.at_level(logging.DEBUG):
        async with ImHelper(server.url, password="hush-hush") as helper:
            token = (await helper.prev_connect_server("ann")).split("token=")[1]
            texts = [repr(helper), repr(vars(helper)), repr(helper._link.config), caplog.text]
    assert not any("hush-hush" in text or token in text for text in texts)
