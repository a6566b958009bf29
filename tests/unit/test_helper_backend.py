# What both ways to Redis decide without I/O: the wire form, what errors mean, routes, pauses, unasync's rewriting.
# The replies quoted are those of Redis 7.0 and Valkey 9.

import asyncio
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from imhelper._backend import _work_aio, _work_blocking, aio
from imhelper._backend.common import (
    Call,
    Routes,
    Verdict,
    backoff,
    connection_settings,
    judge,
    may_pass,
    pack,
    parse_cluster_slots,
    parse_info,
    redirect_of,
    refused,
)
from imhelper.core.redis_url import Address, parse_redis_url
from imhelper.core.scripts import load
from imhelper.errors import RedisUnavailableError


def error_of(line: str) -> Exception:
    """The exception that redis-py makes of an error reply."""
    from redis._parsers.base import BaseParser

    made: Exception = BaseParser.parse_error(line)  # type: ignore[no-untyped-call]
    return made


@given(st.lists(st.one_of(st.binary(max_size=50), st.text(max_size=50), st.integers()), min_size=1, max_size=6))
def test_commands_are_packed_as_redis_reads_them(args):
    encodable = [a.encode("utf-8", "replace").decode() if isinstance(a, str) else a for a in args]
    reader = hiredis.Reader()
    reader.feed(pack(encodable))
    assert reader.gets() == [a if isinstance(a, bytes) else str(a).encode() for a in encodable]
    assert reader.gets() is False


def test_a_script_call_names_its_tag_as_its_only_key():
    script = load("mint")
    assert Call(3, ("a",), script).command("im") == ("EVALSHA", script.sha, 1, "{im:3}", "a")
    assert Call(None, (1,), script).command("im") == ("EVALSHA", script.sha, 1, "{im}", 1)
    assert Call(3, ("GET", "k")).command("im") == ("GET", "k")


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("MOVED 3999 127.0.0.1:6381", Verdict.MOVED),
        ("ASK 3999 127.0.0.1:6381", Verdict.WAIT),
        ("NOSCRIPT No matching script.", Verdict.LOAD),
        ("READONLY You can't write against a read only replica.", Verdict.ELSEWHERE),
        ("LOADING Redis is loading the dataset in memory", Verdict.WAIT),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Verdict.WAIT),
        ("CLUSTERDOWN The cluster is down", Verdict.WAIT),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Verdict.WAIT),
        ("BUSY Redis is busy running a script.", Verdict.WAIT),
        ("OOM command not allowed when used memory > 'maxmemory'.", Verdict.REFUSED),
        ("NOAUTH Authentication required.", Verdict.REFUSED),
        ("WRONGPASS invalid username-password pair or user is disabled.", Verdict.REFUSED),
        ("NOPERM this user has no permissions to run the 'eval' command", Verdict.REFUSED),
        ("ERR unknown command 'X'", Verdict.REFUSED),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Verdict.REFUSED),
    ],
)
def test_what_an_error_reply_means(line, verdict):
    assert judge(error_of(line)) is verdict


def test_refusals_say_what_is_wrong():
    for line, text in (
        ("OOM command not allowed", "out of memory"),
        ("WRONGPASS invalid", "password"),
        ("NOPERM no", "permission"),
        ("MISCONF Redis is configured to save", "save to its disk"),
        ("ERR odd", "refused a command"),
    ):
        error = refused(error_of(line))
        assert isinstance(error, RedisUnavailableError) and text in str(error)
    already = RedisUnavailableError("x")
    assert refused(already) is already


def test_arguments_that_redis_quotes_reach_neither_the_error_nor_its_cause():
    line = "ERR unknown command 'EVALSHA', with args beginning with: '5a1' '1' '{im:3}' 'the-token' "
    error = refused(error_of(line))
    assert "unknown command 'EVALSHA')" in str(error)
    assert "the-token" not in "".join(traceback.format_exception(error))


def test_a_call_does_not_show_its_arguments():
    shown = repr([Call(3, ("the-token", "alice"), load("mint")), Call(None, ("GET", "{im:3}:tok:the-token"))])
    assert shown == "[<Call of script mint for group 3>, <Call of GET for group None>]"


class ClosedLoop:
    """A loop that has ended; while that is looked at, another thread adds something for its own loop."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def is_closed(self) -> bool:
        self.meanwhile()
        return True


async def test_what_another_thread_adds_for_its_loop_is_not_lost():
    link = aio.Link(parse_redis_url("redis://127.0.0.1:1"), prefix="im")
    flight = _work_aio.SingleFlight(5)
    others: Any = (object(), object())
    tables: Any = ((link._engines, others[0]), (flight._running, others[1]))
    for held, other in tables:

        def add(held: Any = held, other: Any = other) -> None:
            held[other] = None

        held[ClosedLoop(add)] = None
    link._engine()
    await flight.run(lambda: asyncio.sleep(0))
    here = asyncio.get_running_loop()
    assert set(link._engines) == {here, others[0]} and set(flight._running) == {here, others[1]}
    del link._engines[others[0]]
    await link.close()


def test_only_a_refused_login_ends_the_search_for_a_server():
    assert may_pass(LostConnection("reset")) and may_pass(OSError()) and may_pass(TimeoutError())
    assert may_pass(error_of("LOADING x")) and may_pass(error_of("READONLY x"))
    assert not may_pass(error_of("WRONGPASS x")) and not may_pass(error_of("NOPERM x"))
    assert not may_pass(error_of("ERR DB index is out of range")) and not may_pass(RedisUnavailableError("x"))


@pytest.mark.parametrize("of", [error_of, ResponseError])
def test_redirects(of):
    asked = Address("asked", 1)
    assert redirect_of(of("MOVED 3999 127.0.0.1:6381"), asked) == Address("127.0.0.1", 6381)
    assert redirect_of(of("MOVED 3999 :6381"), asked) == Address("asked", 6381)
    assert redirect_of(of("MOVED 3999 2001:db8::1:6381"), asked) == Address("2001:db8::1", 6381)


def test_routes_follow_the_ranges_of_the_cluster():
    reply = [[0, 8191, [b"a", 1, b"id"], [b"replica", 9, b"id"]], [8192, 16000, [b"", 2, b"id"]]]
    routes = Routes("im", parse_cluster_slots(reply, Address("asked", 7)))
    for group in (None, *range(16)):
        slot = key_slot(b"{im}" if group is None else f"{{im:{group}}}".encode())
        expected = Address("a", 1) if slot <= 8191 else Address("asked", 2) if slot <= 16000 else None
        assert routes.address(group) == expected


@given(st.integers(min_value=-5, max_value=10_000))
def test_pauses_grow_and_are_bounded(failures):
    assert 0 <= backoff(failures) <= 1
    assert (backoff(failures) == 0) == (failures <= 0)


def test_info_is_read():
    assert (
        parse_info(b"# Memory\r\nused_memory:1\r\nmaxmemory_policy:noeviction\r\n")["maxmemory_policy"] == "noeviction"
    )


def test_connection_settings_read_credentials_each_time():
    passwords = iter(["one", "two"])
    config = parse_redis_url("rediss://u@h/3", password=lambda: next(passwords), ssl_ca_certs="/ca")
    for password in ("one", "two"):
        kind, settings = connection_settings(config, config.addresses[0], sentinel=False, connect_timeout=1)
        assert (kind, settings["username"], settings["password"], settings["db"]) == ("tls", "u", password, 3)
        assert settings["ssl_ca_certs"] == "/ca" and settings["ssl_cert_reqs"] == "required"
    kind, settings = connection_settings(config, config.addresses[0], sentinel=True, connect_timeout=1)
    assert (settings["password"], settings["db"]) == (None, 0)


async def test_asyncio_callers_of_one_flight_share_its_run_and_its_error():
    flight, runs = _work_aio.SingleFlight(5), []

    async def work() -> None:
        runs.append(1)
        await asyncio.sleep(0.01)
        raise RedisUnavailableError("down")

    outcomes = await asyncio.gather(*(flight.run(work) for _ in range(5)), return_exceptions=True)
    assert len(runs) == 1 and all(isinstance(o, RedisUnavailableError) for o in outcomes)
    with pytest.raises(RedisUnavailableError):
        await flight.run(work)
    assert len(runs) == 2


@pytest.fixture
def followers(monkeypatch):
    """Released once for each caller of a blocking flight that has found the run of another one."""
    found = threading.Semaphore(0)

    class Watched(Future):  # type: ignore[type-arg]
        def result(self, timeout: float | None = None) -> Any:
            found.release()
            return super().result(timeout)

    monkeypatch.setattr(_work_blocking, "Future", Watched)
    return found


def test_blocking_callers_of_one_flight_share_its_run_and_its_error(followers):
    flight, runs, release = _work_blocking.SingleFlight(60), [], threading.Event()

    def work() -> None:
        runs.append(1)
        assert release.wait(60)
        raise RedisUnavailableError("down")

    with ThreadPoolExecutor(5) as pool:
        callers = [pool.submit(flight.run, work) for _ in range(5)]
        assert all(followers.acquire(timeout=60) for _ in range(4))
        release.set()
        assert all(isinstance(c.exception(60), RedisUnavailableError) for c in callers)
    assert len(runs) == 1
    with pytest.raises(RedisUnavailableError):
        flight.run(work)
    assert len(runs) == 2


def test_a_blocking_caller_gives_up_the_run_of_another_thread_when_its_time_is_over():
    flight, running, release = _work_blocking.SingleFlight(0.01), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        assert release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(flight.run, work)
        assert running.wait(60)
        try:
            with pytest.raises(RedisUnavailableError, match="another thread"):
                flight.run(work)
        finally:
            release.set()
        first.result(60)


def test_a_run_that_was_interrupted_is_repeated_by_who_waited_for_it(followers):
    flight, runs = _work_blocking.SingleFlight(60), []

    def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            assert followers.acquire(timeout=60)
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        outcomes = [caller.exception(60) for caller in [pool.submit(flight.run, work) for _ in range(2)]]
    assert len(runs) == 2 and {type(o) for o in outcomes} == {KeyboardInterrupt, type(None)}


async def test_an_asyncio_worker_stops_when_asked_and_reports_its_error(caplog):
    worker = _work_aio.Background("worker", lambda: worker.pause(60))
    worker.start()
    await worker.stop()
    assert worker.stopping and not caplog.records

    async def fail() -> None:
        raise RuntimeError("broken")

    failing = _work_aio.Background("failing", fail)
    failing.start()
    await failing.stop()
    assert "failing ended with an error" in caplog.text


def test_a_blocking_worker_stops_when_asked_and_reports_its_error(caplog):
    before = threading.active_count()
    worker = _work_blocking.Background("worker", lambda: worker.pause(60))
    worker.start()
    worker.stop()
    assert worker.stopping and not caplog.records and threading.active_count() == before
    failing = _work_blocking.Background("failing", lambda: 1 / 0)  # type: ignore[arg-type]
    failing.start()
    failing.stop()
    assert "failing ended with an error" in caplog.text
