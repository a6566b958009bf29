# deploy/redis.conf and deploy/imcluster.acl on real servers: the settings are taken, and the rights suffice for a whole
# cycle of a cluster (two servers, one of them killed; helpers with every call), with nothing refused on the way.

import asyncio
import subprocess
import sys

import pytest
import redis

from imhelper import ImHelper, RedisUnavailableError
from imhelper.core.topology import ServerEntry, Topology
from imhelper.sync import ImHelper as BlockingImHelper
from imoperator.redis import Access, Redis
from tests.support import docs
from tests.support.nginx import Nginx, listens
from tests.support.ports import free_port
from tests.support.redis_cluster import NODES, cluster_options, join_cluster
from tests.support.waiting import eventually
from tests.support.ws import open_socket

PASSWORD = "tried-in-a-test"
# redis-py tells its name at connect and takes a refusal; Redis 7.0 does not even know the command, so no rule names it.
HARMLESS = {"client|setinfo"}


@pytest.fixture
def guarded(spawn_redis, tmp_path):
    """A Redis with the settings and the user of deploy/; the default user stays, for the test's own questions."""
    rule = docs.read("deploy/imcluster.acl").replace(" off resetpass ", f" on >{PASSWORD} ")
    acl = tmp_path / "users.acl"
    acl.write_text(rule)
    return spawn_redis("--include", str(docs.ROOT / "deploy/redis.conf"), "--aclfile", str(acl))


def _url(server) -> str:
    return f"redis://imcluster:{PASSWORD}@127.0.0.1:{server.port}/0"


async def _refused(server) -> set[str]:
    return await asyncio.to_thread(_denials, server) - HARMLESS


def _denials(server) -> set[str]:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        return {entry["object"] for entry in client.acl_log(1000)}


def test_redis_takes_the_settings(guarded):
    wanted = {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "timeout": "0",
        "tcp-keepalive": "60",  # no default: it shows that the file was read
    }
    with redis.Redis(port=guarded.port, decode_responses=True) as client:
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


async def test_the_rights_suffice_for_a_whole_cycle(guarded, spawn_imservers):
    # Small bounds, so that trimming by entries, bytes and time is part of the cycle.
    fast = {
        "IM_GRACE_SECONDS": 1,
        "IM_LEASE_SECONDS": 1,
        "IM_RETAIN_BYTES": 65536,
        "IM_RETAIN_ENTRIES": 500,
        "IM_SLOTS": 16,
        "IM_MAX_SOCKETS_PER_CLIENT": 2,
    }
    servers = await asyncio.to_thread(spawn_imservers, 2, _url(guarded), **fast)
    events: list[tuple[str, str]] = []
    async with ImHelper(_url(guarded)) as im:
        bus = await im.event_bus(
            lambda c, m: events.append(("on", c)), lambda c, m: events.append(("off", c)), group="g"
        )
        every = await im.event_bus(lambda c, m: None, lambda c, m: None)
        async with (
            open_socket(await im.prev_connect_server("alice", "phone"), envelope=True) as alice,
            open_socket(await im.prev_connect_server("bob")) as bob,
            open_socket(await im.prev_connect_server("alice"), envelope=True),
            open_socket(await im.prev_connect_server("alice"), envelope=True),
        ):
            assert (await alice.closed())[0] == 4502
            assert await im.join_chan("bob", "room") and await im.join_chan("alice", "room")
            for number in range(200):
                await im.send_message("alice", ["bob"], f"{number} {'x' * 500}", receipt=number == 0)
            for number in range(200):
                assert str(await bob.recv()).startswith(f"{number} ")
            await im.send_chan_message("alice", "room", {"n": 1}, idempotency_key="k")
            assert await bob.recv() == '{"n":1}'
            assert await im.has_online_many(["alice", "nobody"]) == {"alice": True, "nobody": False}
            assert sorted(await im.get_client_list_by_online()) == ["alice", "bob"]
            assert await im.get_online_count() == 2
            assert await im.get_chan_client_list("room") and await im.get_chan_online("room") == 2
            assert await im.get_chan_list() == [("room", 2)]
            assert await im.get_chan_list_by_client_id("bob") == ["room"]
            assert await im.leave_chan("alice", "room") == 1
            assert await im.clear_chan_client("room") == 1
            assert {s.name for s in await im.servers()} == {"s0", "s1"}
            assert await im.disconnect("alice", "bye") == 2
            await im.send_message("bob", ["nobody", "bob"], b"\x00", receipt=True)
            # A server dies: its lease is fenced, its sockets are reclaimed, bob goes offline after grace.
            owner = (await im.prev_connect_server("bob")).partition("?")[0]
            await asyncio.to_thread(next(s for s in servers if s.url == owner).kill)
        await eventually(lambda: ("off", "bob") in events, 20, "bob's offline event")
        await bus.close()
        await every.close()
    assert ("on", "bob") in events and ("off", "alice") in events
    await asyncio.to_thread(_use_the_blocking_helper, guarded)
    for server in servers:
        if server.running:
            assert await server.stop_async() == 0
    assert await _refused(guarded) == set()


async def test_with_two_more_rules_they_suffice_on_a_redis_cluster(spawn_redis, spawn_imservers, tmp_path):
    acl = tmp_path / "users.acl"
    rule = docs.read("deploy/imcluster.acl").replace(" off resetpass ", f" on >{PASSWORD} ")
    acl.write_text(f"{rule.rstrip()} {' '.join(sorted(docs.CLUSTER_RULES))}\n")
    nodes = [
        await asyncio.to_thread(lambda: spawn_redis(*cluster_options(), "--aclfile", str(acl))) for _ in range(NODES)
    ]
    await asyncio.to_thread(join_cluster, nodes)
    url = f"redis+cluster://imcluster:{PASSWORD}@127.0.0.1:{nodes[0].port}"
    [server] = await asyncio.to_thread(spawn_imservers, 1, url)
    async with (
        ImHelper(url) as im,
        open_socket(await im.prev_connect_server("alice"), envelope=True) as alice,
        open_socket(await im.prev_connect_server("bob")) as bob,
    ):
        # alice and bob are in different groups, so the receipt goes through the outbox.
        sent = await im.send_message("alice", ["bob"], "hello", receipt=True)
        assert await bob.recv() == "hello"
        receipt = await alice.recv_kind("receipt")
        assert (receipt["id"], receipt["to"], receipt["status"]) == (sent, "bob", "delivered")
        assert await im.join_chan("bob", "room") and await im.get_chan_list() == [("room", 1)]
    assert await server.stop_async() == 0
    for node in nodes:
        assert await _refused(node) == set()


async def test_they_suffice_for_the_operator_too(guarded):
    access = Access(f"redis://127.0.0.1:{guarded.port}", "im", "imcluster", PASSWORD)
    operator, successor = Redis(access, "uid", "one"), Redis(access, "uid", "two")
    assert await operator.hold()
    new = Topology(0, 16, 1, (ServerEntry("chat-0", "ws://a/ws"),), (0,) * 16)
    assert await operator.publish(new, await operator.view([], 5.0)) is not None
    assert (await operator.view(["chat-0"], 5.0)).topology is not None
    await operator.release()
    assert await successor.hold(only_keep=True)
    assert await successor.wipe() == 2
    assert guarded.command("DBSIZE") == 0
    await operator.close()
    await successor.close()
    assert await _refused(guarded) == set()


def _use_the_blocking_helper(guarded) -> None:
    with BlockingImHelper(_url(guarded)) as im:
        assert im.has_online("bob") is False
        im.send_message("a", "b", "text")
    for question in (["servers"], ["topology"], ["client", "bob"], ["chan", "room"], ["slot", "1"]):
        command = [sys.executable, "-m", "imhelper", *question, "--redis-url", _url(guarded)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, ""), question


def test_other_keys_and_other_commands_are_refused(guarded):
    with redis.Redis(port=guarded.port, username="imcluster", password=PASSWORD) as client:
        for command in (
            ("GET", "other"),
            ("SET", "{imx}:a", "1"),
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
            ("PUBLISH", "c", "m"),
            ("EVAL", "return redis.call('GET', 'other')", 0),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        sha = client.script_load("return redis.call('GET', 'other')")
        with pytest.raises(redis.exceptions.ResponseError, match=r"permission|can't access"):
            client.evalsha(sha, 0)


async def test_the_user_as_it_is_delivered_may_not_log_in(spawn_redis, tmp_path):
    acl = tmp_path / "users.acl"
    acl.write_text(docs.read("deploy/imcluster.acl"))
    server = await asyncio.to_thread(spawn_redis, "--aclfile", str(acl))
    async with ImHelper(f"redis://imcluster:x@127.0.0.1:{server.port}", timeout=2) as im:
        with pytest.raises(RedisUnavailableError, match="login"):
            await im.servers()


# The proxy of docs/deploy.md.


async def test_clients_reach_their_servers_through_the_documented_proxy(
    redis_server, spawn_imservers, tmp_path, processes
):
    port = free_port()
    servers = [
        (await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_URL=f"ws://127.0.0.1:{port}/im/{n}/ws"))[0]
        for n in (1, 2)
    ]
    (snippet,) = docs.blocks(docs.read("docs/deploy.md"), "nginx")
    assert "http://127.0.0.1:600$ordinal" in snippet
    own = "".join(f'if ($ordinal = "{n}") {{ set $to {s.port}; }}\n' for n, s in enumerate(servers, 1))
    snippet = snippet.replace("listen 8080", f"listen 127.0.0.1:{port}")
    snippet = snippet.replace("proxy_pass http://127.0.0.1:600$ordinal", f"{own}proxy_pass http://127.0.0.1:$to")
    proxy = Nginx(snippet, tmp_path)
    processes(proxy)
    proxy.launch()
    async with ImHelper(redis_server.url) as im:
        await eventually(lambda: listens(port), 10, "the proxy")
        for number in range(4):
            url = await im.prev_connect_server(f"client-{number}")
            assert url.startswith(f"ws://127.0.0.1:{port}/im/")
            async with open_socket(url, envelope=True) as client:
                hello = await client.recv_kind("hello")
                assert hello["server"] == servers[int(url.split("/im/")[1][0]) - 1].name
    assert await proxy.stop_async() == 0
