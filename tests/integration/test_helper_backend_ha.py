# Both ways to Redis where there is more than one server: a Redis Cluster that moves slots, a Sentinel that fails over.
# The servers are real; the blocking and the asyncio form do the same steps.

import asyncio
import inspect
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from imhelper._backend import aio, blocking
from imhelper._backend.common import Call
from imhelper.core.redis_url import parse_redis_url
from imhelper.errors import RedisUnavailableError
from tests.integration.test_helper_backend_aio import ECHO, WRITE
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.redis_server import redis_binary
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.redis5
ALL_GROUPS = range(16)


async def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call either form; the blocking one in a thread, so that nothing else stands still."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)


@pytest.fixture(params=["asyncio", "blocking"])
async def make_link(request):
    links: list[Any] = []

    def make(url: str, timeout: float = 10.0) -> Any:
        kind = aio.Link if request.param == "asyncio" else blocking.Link
        links.append(kind(parse_redis_url(url), prefix="im", timeout=timeout))
        return links[-1]

    yield make
    for link in links:
        await call(link.close)


@pytest.fixture
def redis_cluster(spawn_redis):
    """Two nodes, each with half of the hash slots."""
    # The bus's default port, 10,000 above, may be taken by an outgoing connection of the machine.
    buses = [free_port(), free_port()]
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port")
    nodes = [spawn_redis(*options, str(bus)) for bus in buses]
    nodes[0].command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    nodes[1].command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    nodes[1].command("CLUSTER", "SET-CONFIG-EPOCH", 2)
    nodes[0].command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])

    def joined() -> bool:
        return all(
            "cluster_state:ok" in str(node.command("CLUSTER", "INFO"))
            and str(node.command("CLUSTER", "NODES")).count("connected ") == 2
            for node in nodes
        )

    wait_until(joined, 20, "the cluster")
    return nodes


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_cluster_is_recognised_and_its_groups_are_spread(redis_cluster, make_link, scheme):
    link = make_link(redis_cluster[0].url.replace("redis", scheme, 1))
    await call(link.ready)
    assert link.groups == 16
    replies = await call(link.gather, [Call(g, (str(g),), WRITE) for g in ALL_GROUPS] + [Call(None, ("g",), ECHO)])
    assert replies == [str(g).encode() for g in ALL_GROUPS] + [b"g"]
    sizes = [await asyncio.to_thread(node.command, "DBSIZE") for node in redis_cluster]
    assert sum(sizes) == 16 and min(sizes) > 0


async def test_a_slot_that_moves_is_waited_for_and_followed(redis_cluster, make_link):
    # While its keys are on two nodes a script would see only some of them: at either node it must not run.
    link = make_link(redis_cluster[1].url)
    for group in ALL_GROUPS:
        assert await call(link.eval, WRITE, group, "before") == b"before"
    ids = [bytes(await asyncio.to_thread(n.command, "CLUSTER", "MYID")).decode() for n in redis_cluster]
    slot = int(await asyncio.to_thread(redis_cluster[0].command, "CLUSTER", "KEYSLOT", "{im:3}"))
    source, target = (0, 1) if slot <= 8191 else (1, 0)

    def on(node: int, *arguments: Any) -> Any:
        return redis_cluster[node].command(*arguments)

    on(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    on(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    waiting = asyncio.create_task(call(link.eval, WRITE, 3, "waited"))
    assert await call(link.eval, WRITE, 2, "other") == b"other"
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert on(target, "CLUSTER", "COUNTKEYSINSLOT", slot) == 0
    assert on(source, "CLUSTER", "GETKEYSINSLOT", slot, 9) == [b"{im:3}:kbefore"]
    on(source, "MIGRATE", "127.0.0.1", redis_cluster[target].port, "{im:3}:kbefore", 0, 5000)
    for node in (target, source):
        on(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    assert await waiting == b"waited"
    assert await call(link.eval, WRITE, 3, "moved") == b"moved"
    assert await call(link.command, 3, "GET", "{im:3}:kbefore") == b"before"


async def test_a_dead_node_concerns_only_its_own_groups(redis_cluster, make_link):
    link = make_link(redis_cluster[0].url, timeout=1.0)
    for node in redis_cluster:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    await call(link.gather, [Call(g, ("x",), ECHO) for g in ALL_GROUPS])
    redis_cluster[1].kill()
    replies = await call(link.gather, [Call(g, ("y",), ECHO) for g in ALL_GROUPS])
    lost = [r for r in replies if isinstance(r, RedisUnavailableError)]
    assert lost and replies.count(b"y") == len(replies) - len(lost) > 0
    redis_cluster[1].start()

    async def healed() -> bool:
        return list(await call(link.gather, [Call(g, ("z",), ECHO) for g in ALL_GROUPS])) == [b"z"] * 16

    await eventually(healed, 20)


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("away", [0, 1])
async def test_a_node_that_was_never_reached_concerns_only_its_own_groups(redis_cluster, make_link, away, how):
    # Of the two one stands before the other in any order, so once the one that is away is asked first.
    for node in redis_cluster:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    there, gone = redis_cluster[1 - away], redis_cluster[away]
    slots = [int(there.command("CLUSTER", "KEYSLOT", f"{{im:{group}}}")) for group in ALL_GROUPS]
    gone.kill() if how == "killed" else gone.freeze()
    try:
        link = make_link(there.url.replace("redis", "redis+cluster", 1), timeout=2.0)
        replies = await call(link.gather, [Call(group, ("y",), ECHO) for group in ALL_GROUPS])
    finally:
        if how == "frozen":
            gone.thaw()
    told = [reply if isinstance(reply, bytes) else type(reply) for reply in replies]
    assert told == [RedisUnavailableError if (slot > 8191) == bool(away) else b"y" for slot in slots]


@pytest.fixture
def sentinel(spawn_redis, redis_flavour, tmp_path: Path, processes):
    """A primary, its replica and one Sentinel that watches them; returns (sentinel port, primary, replica)."""
    primary, replica = spawn_redis(), spawn_redis()
    replica.command("REPLICAOF", "127.0.0.1", primary.port)
    wait_until(lambda: "online" in str(primary.command("INFO", "replication")), 20, "the replica")
    port = free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 5000\n"
    )
    watcher = Process("sentinel", [redis_binary(redis_flavour), str(settings), "--sentinel"], tmp_path / "sentinel.log")
    processes(watcher)
    watcher.launch()
    watcher.wait_output("+slave", 20)
    return port, primary, replica


def connections_to(listener: socket.socket) -> int:
    """How many came since the last question."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


async def test_silent_sentinels_leave_time_for_one_that_answers_and_then_stand_behind_it(sentinel, make_link):
    port, _, _ = sentinel
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        for listener in silent:
            listener.setblocking(False)
        addresses = ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in silent)
        link = make_link(f"redis+sentinel://{addresses},127.0.0.1:{port}/mymaster", timeout=4.0)
        assert await call(link.eval, WRITE, 0, "x") == b"x"
        assert [connections_to(listener) for listener in silent] == [1, 1]
        watcher = stack.enter_context(redis.Redis(port=port))

        def asked() -> int:
            return int(watcher.info("stats")["total_connections_received"])

        before = asked()

        async def again() -> bool:
            await call(link.command, 0, "PING")
            return asked() > before

        await eventually(again, 20, "Sentinel is asked again whether the primary is still the same")
        assert [connections_to(listener) for listener in silent] == [0, 0]


async def test_a_failover_of_sentinel_is_followed(sentinel, make_link):
    port, primary, replica = sentinel
    link = make_link(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/mymaster", timeout=25.0)
    assert await call(link.eval, WRITE, 0, "x") == b"x"
    assert primary.command("EXISTS", "{im:0}:kx") == 1
    assert link.groups == 1
    await asyncio.to_thread(primary.kill)
    assert await call(link.eval, WRITE, 0, "y") == b"y"
    assert replica.command("EXISTS", "{im:0}:ky") == 1


async def test_a_primary_that_was_replaced_and_does_not_know_it_is_left(sentinel, make_link):
    # What it still takes is lost. Sentinel tells it after ten seconds or so; here it never learns.
    port, primary, replica = sentinel
    link = make_link(f"redis+sentinel://127.0.0.1:{port}/mymaster", timeout=25.0)
    assert await call(link.eval, WRITE, 0, "x") == b"x"
    primary.command("ACL", "SETUSER", "default", "-replicaof", "-slaveof")

    def switched() -> bool:
        with redis.Redis(host="127.0.0.1", port=port) as client, suppress(redis.ResponseError):
            client.execute_command("SENTINEL", "FAILOVER", "mymaster")
        # Sentinel ends the connections of a replica that it promotes, ours too.
        with suppress(redis.ConnectionError):
            return bool(replica.command("ROLE")[0] == b"master")
        return False

    await asyncio.to_thread(wait_until, switched, 30, "the failover")

    async def arrives() -> bool:
        replica.command("DEL", "{im:0}:ky")
        assert await call(link.eval, WRITE, 0, "y") == b"y"
        return bool(replica.command("EXISTS", "{im:0}:ky") == 1)

    await eventually(arrives, 30)
    for number in range(5):
        assert await call(link.eval, WRITE, 0, f"z{number}") == f"z{number}".encode()
    assert primary.command("ROLE")[0] == b"master"
    assert primary.command("KEYS", "{im:0}:kz*") == []


async def test_an_unknown_service_is_told(sentinel, make_link):
    link = make_link(f"redis+sentinel://127.0.0.1:{sentinel[0]}/other", timeout=0.5)
    with pytest.raises(RedisUnavailableError, match="no Sentinel knows a primary for 'other'"):
        await call(link.ready)
