# imhelper's blocking way to Redis against a real server that restarts, dies, pauses, refuses and runs full.
# What must hold: an answer or RedisUnavailableError, never another thread's reply, never a bare redis exception.

import os
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from imhelper._backend.blocking import Link
from imhelper._backend.common import Call
from imhelper.core.redis_url import parse_redis_url
from imhelper.errors import RedisUnavailableError
from tests.integration.test_helper_backend_aio import ECHO, WRITE, in_child, script
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis5


@contextmanager
def linked(url: str, **options) -> Iterator[Link]:
    timeout = options.pop("timeout", 5.0)
    link = Link(parse_redis_url(url, **options), prefix="im", timeout=timeout)
    try:
        yield link
    finally:
        link.close()


def test_scripts_and_commands_answer_raw(redis_server):
    with linked(redis_server.url) as link:
        assert link.eval(ECHO, 0, "é") == "é".encode()
        assert link.eval(script("return KEYS[1]"), None) == b"{im}"
        assert link.command(0, "SET", "{im:0}:x", b"\x00\xff") == b"OK"
        assert link.command(0, "GET", "{im:0}:x") == b"\x00\xff"
        assert link.groups == 1


def test_gather_is_one_round_trip_and_returns_failures_as_elements(redis_server):
    with linked(redis_server.url) as link:
        link.command(0, "SET", "{im:0}:s", "text")
        replies = link.gather([Call(0, ("a",), ECHO), Call(0, ("INCR", "{im:0}:s")), Call(0, ("GET", "{im:0}:s"))])
        assert replies[0] == b"a" and replies[2] == b"text"
        assert isinstance(replies[1], RedisUnavailableError) and "not an integer" in str(replies[1])
        assert link.gather([Call(0, (str(i),), ECHO) for i in range(3000)]) == [b"%d" % i for i in range(3000)]
        assert link.gather([]) == []


def test_threads_share_a_link_over_a_restart(redis_server):
    with linked(redis_server.url, timeout=20) as link, ThreadPoolExecutor(8) as pool:
        stop = threading.Event()

        def work(name: int) -> int:
            n = 0
            while not stop.is_set():
                assert link.eval(WRITE, 0, f"{name}.{n}") == f"{name}.{n}".encode()
                n += 1
            return n

        workers = [pool.submit(work, i) for i in range(8)]
        try:
            redis_server.kill_and_restart()
            redis_server.command("CLIENT", "KILL", "TYPE", "normal")
            redis_server.command("SCRIPT", "FLUSH")
            link.eval(WRITE, 0, "after")
        finally:
            stop.set()
        assert min(w.result(30) for w in workers) > 0


def test_a_paused_server_is_waited_for(redis_server):
    with linked(redis_server.url, timeout=10) as link:
        link.ready()
        redis_server.command("CLIENT", "PAUSE", "1000", "ALL")
        assert link.eval(ECHO, 0, "patience") == b"patience"


def test_a_frozen_server_is_told_and_found_again(redis_server):
    with linked(redis_server.url, timeout=0.6) as link:
        link.ready()
        redis_server.freeze()
        try:
            with pytest.raises(RedisUnavailableError, match=r"did not answer within 0\.6 s"):
                link.eval(ECHO, 0, "x")
        finally:
            redis_server.thaw()
        wait_until(lambda: redis_server.command("PING"))
        assert link.eval(ECHO, 0, "again") == b"again"


def test_no_server_is_told_with_its_cause(redis_server):
    redis_server.stop()
    with linked(redis_server.url, timeout=0.5) as link:
        with pytest.raises(RedisUnavailableError, match=f"127.0.0.1:{redis_server.port}") as caught:
            link.eval(ECHO, 0, "x")
        assert isinstance(caught.value.__cause__, Exception)
        redis_server.start()
        assert link.eval(ECHO, 0, "x") == b"x"


@pytest.mark.parametrize("password", [None, "wrong-password"])
def test_a_refused_login_is_told_at_once_without_the_password(spawn_redis, password):
    server = spawn_redis("--requirepass", "right-password")
    with linked(server.url, password=password, timeout=600) as link:
        with pytest.raises(RedisUnavailableError, match="user name or the password") as caught:
            link.eval(ECHO, 0, "x")
        told = "".join(traceback.format_exception(caught.value)) + repr(link)
        assert "right-password" not in told and "wrong-password" not in told


def test_the_password_is_asked_for_again_at_each_connection(spawn_redis):
    server = spawn_redis("--requirepass", "one")
    current = "one"
    with linked(server.url, password=lambda: current) as link:
        assert link.eval(ECHO, 0, "x") == b"x"
        server.command("CONFIG", "SET", "requirepass", "two")
        current = server.password = "two"
        server.command("CLIENT", "KILL", "TYPE", "normal")
        assert link.eval(ECHO, 0, "x") == b"x"


def test_full_memory_is_told_at_once(spawn_redis):
    with (
        linked(spawn_redis("--maxmemory", "1").url, timeout=600) as link,
        pytest.raises(RedisUnavailableError, match="out of memory"),
    ):
        link.eval(WRITE, 0, "x")


def test_a_missing_permission_is_told_at_once(redis_server):
    redis_server.command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-script", "-info")
    with linked(redis_server.url, username="narrow", password="pw", timeout=600) as link:
        assert link.command(0, "GET", "{im:0}:x") is None
        with pytest.raises(RedisUnavailableError, match="permission"):
            link.eval(ECHO, 0, "x")


def test_a_replica_is_not_taken_for_the_primary(redis_server, spawn_redis):
    other = spawn_redis()
    with linked(redis_server.url, timeout=0.8) as link:
        link.eval(WRITE, 0, "x")
        redis_server.command("REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(RedisUnavailableError):
            link.eval(WRITE, 0, "x")
        redis_server.command("REPLICAOF", "NO", "ONE")
        assert link.eval(WRITE, 0, "y") == b"y"


def test_a_dedicated_connection_tells_of_its_loss(redis_server):
    with linked(redis_server.url) as link:
        reader = link.dedicated(0, timeout=0.2)
        assert reader.call("PING") == b"PONG"
        with pytest.raises(RedisUnavailableError, match="refused"):
            reader.call("INCR")
        with pytest.raises(RedisUnavailableError, match="lost"):
            reader.call("XREAD", "BLOCK", "0", "STREAMS", "{im:0}:st", "$")
        reader.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_connects_by_itself_and_leaves_the_parent_alone(redis_server):
    with linked(redis_server.url) as link:
        assert link.eval(ECHO, 0, "parent") == b"parent"

        def use() -> None:
            for i in range(50):
                assert link.eval(ECHO, 0, f"{os.getpid()}.{i}") == f"{os.getpid()}.{i}".encode()
            link.close()

        assert in_child(use) == 0
        assert link.eval(ECHO, 0, "still") == b"still"


def test_the_link_starts_no_thread(redis_server):
    before = threading.active_count()
    with linked(redis_server.url) as link:
        link.eval(ECHO, 0, "x")
        assert threading.active_count() == before


def test_a_closed_link_connects_again(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=5)
    link.ready()
    link.close()
    link.close()
    assert link.eval(ECHO, 0, "x") == b"x"
    assert link.eviction_policy() == "noeviction"
    link.close()


def test_a_connection_in_use_while_the_link_closes_is_closed_when_its_call_ends(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=60)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(link.command, 0, "BLPOP", "{im:0}:list", "0")
        wait_until(lambda: "cmd=blpop" in str(redis_server.command("CLIENT", "LIST")))
        link.close()
        redis_server.command("RPUSH", "{im:0}:list", "x")
        assert call.result(60) == [b"{im:0}:list", b"x"]
    wait_until(lambda: "cmd=blpop" not in str(redis_server.command("CLIENT", "LIST")))
    link.close()
