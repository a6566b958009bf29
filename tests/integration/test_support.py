# The fixtures themselves: what other tests build on must really be fresh, durable and gone afterwards.
# A fixture that silently lost data or left processes behind would make other tests lie.

import os

import pytest
import redis

from tests.support.ports import free_port, share
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, wait_until


def _config(server: RedisServer, name: str) -> object:
    with server.client() as client:
        return client.config_get(name)[name]


def test_redis_is_fresh_and_set_up_as_the_contract_asks(redis_server):
    assert redis_server.command("DBSIZE") == 0
    assert _config(redis_server, "appendonly") == "yes"
    assert _config(redis_server, "maxmemory-policy") == "noeviction"


def test_redis_is_the_flavour_that_was_asked_for(redis_server):
    with redis_server.client() as client:
        info = client.info("server")
    version = info.get("valkey_version", info["redis_version"])
    assert version.startswith({"valkey": "9.", "redis7": "7."}[redis_server.flavour])


def test_redis_keeps_what_it_acknowledged_through_kill_and_restart(redis_server):
    redis_server.command("SET", "answer", "42")
    first = redis_server.pid
    redis_server.kill_and_restart()
    assert redis_server.pid != first
    assert redis_server.command("GET", "answer") == b"42"
    redis_server.restart()
    assert redis_server.command("GET", "answer") == b"42"


def test_redis_takes_options(spawn_redis):
    server = spawn_redis("--requirepass", "secret")
    assert server.command("PING") in (True, b"PONG")
    assert _config(server, "requirepass") == "secret"


def test_a_redis_cluster_shares_the_keys(redis_cluster):
    client = redis.RedisCluster(host="127.0.0.1", port=redis_cluster[0].port)
    for number in range(50):
        client.set(f"key{number}", number)
    client.close()
    assert sum(int(str(node.command("DBSIZE"))) for node in redis_cluster) == 50
    assert all(node.command("DBSIZE") for node in redis_cluster)


def test_kill_ends_the_process(redis_server):
    pid = redis_server.pid
    redis_server.kill()
    assert not redis_server.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_free_ports_are_never_given_twice():
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_never_give_out_each_others_ports(workers):
    ports = range(15_000, 32_768)
    environ = {"PYTEST_XDIST_WORKER_COUNT": str(workers)}
    shares = [set(share(ports, environ | {"PYTEST_XDIST_WORKER": f"gw{number}"})) for number in range(workers)]
    given = set.union(*shares)
    assert sum(map(len, shares)) == len(given)
    assert given <= set(ports) and len(ports) - len(given) < workers
    assert share(ports, {}) == ports


def test_waiting_ends_with_an_error_that_says_for_what():
    with pytest.raises(AssertionError, match="the impossible"):
        wait_until(lambda: False, timeout=0.05, what="the impossible")


async def test_eventually_takes_both_kinds_of_functions():
    async def answer() -> str:
        return "yes"

    assert await eventually(answer) == "yes"
    assert await eventually(lambda: "yes") == "yes"
    with pytest.raises(AssertionError, match="the impossible"):
        await eventually(lambda: None, timeout=0.05, what="the impossible")
