# imhelper's asyncio way to Redis against a real server that restarts, dies, pauses, refuses and runs full.
# What must hold: an answer or RedisUnavailableError, never another caller's reply, never a bare redis exception.

import asyncio
import hashlib
import os
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from imhelper._backend import _engine
from imhelper._backend.aio import Link
from imhelper._backend.common import Call
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.scripts import Script
from imhelper.errors import RedisUnavailableError
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis5


def script(source: str) -> Script:
    return Script("test", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


ECHO = script("return ARGV[1]")
WRITE = script("redis.call('SET', KEYS[1] .. ':k' .. ARGV[1], ARGV[1]) return ARGV[1]")


@asynccontextmanager
async def linked(url: str, **options) -> AsyncIterator[Link]:
    timeout = options.pop("timeout", 5.0)
    link = Link(parse_redis_url(url, **options), prefix="im", timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


async def test_scripts_and_commands_answer_raw(redis_server):
    async with linked(redis_server.url) as link:
        assert await link.eval(ECHO, 0, "é") == "é".encode()
        assert await link.eval(script("return KEYS[1]"), None) == b"{im}"
        assert await link.eval(script("return KEYS[1]"), 3) == b"{im:3}"
        assert await link.command(0, "SET", "{im:0}:x", b"\x00\xff") == b"OK"
        assert await link.command(0, "GET", "{im:0}:x") == b"\x00\xff"
        assert await link.command(0, "INCRBY", "{im:0}:n", 7) == 7
        assert await link.command(0, "GET", "{im:0}:none") is None
        assert link.groups == 1


async def test_15000_concurrent_calls_each_get_their_own_reply(redis_server):
    async with linked(redis_server.url, timeout=30) as link:
        replies = await asyncio.gather(*(link.eval(ECHO, 0, str(i)) for i in range(15_000)))
        assert replies == [str(i).encode() for i in range(15_000)]
        loads = (await link.command(0, "INFO", "commandstats")).decode()
        assert "cmdstat_script|load:calls=1," in loads, "the missing script was loaded once, not once a call"


async def test_too_many_waiting_calls_are_refused_and_the_others_answered(redis_server):
    async with linked(redis_server.url, timeout=30) as link:
        outcomes = await link.gather([Call(0, (str(i),), ECHO) for i in range(70_000)])
        refused = [o for o in outcomes if isinstance(o, Exception)]
        assert refused and all(isinstance(o, RedisUnavailableError) for o in refused)
        assert outcomes[:65_000] == [str(i).encode() for i in range(65_000)]


async def test_one_call_without_an_answer_holds_up_nothing_of_what_is_answered(redis_server):
    stuck_script = script("return redis.error_reply('TRYAGAIN it never ends')")
    async with linked(redis_server.url, timeout=30) as link:
        stuck = asyncio.create_task(link.eval(stuck_script, 0))
        await asyncio.sleep(0)
        # More than may wait at once: those that are answered do not count.
        for start in range(0, 70_000, 2_000):
            replies = await link.gather([Call(0, ("PING",))] * 2_000)
            assert replies == [b"PONG"] * 2_000, start
        assert not stuck.done()
        engine = link._engine()
        assert len(engine._waiting) == 1, "what was answered is kept by nobody, its payload least of all"
        stuck.cancel()


async def test_calls_given_up_by_their_callers_make_room(redis_server, monkeypatch):
    monkeypatch.setattr(_engine, "MAX_WAITING", 10)
    redis_server.stop()
    async with linked(redis_server.url, timeout=30) as link:
        waiting = [asyncio.create_task(link.command(0, "PING")) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(RedisUnavailableError, match="more than 10 calls"):
            await link.command(0, "PING")
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        last = asyncio.create_task(link.command(0, "PING"))
        await asyncio.to_thread(redis_server.start)
        assert await last == b"PONG"


async def test_calls_that_timed_out_do_not_pile_up_while_there_is_no_server(redis_server):
    redis_server.stop()
    async with linked(redis_server.url, timeout=0.1) as link:
        for _ in range(30):
            replies = await link.gather([Call(0, ("PING",))] * 100)
            assert all(isinstance(reply, RedisUnavailableError) for reply in replies)
        assert len(link._engine()._parked) <= 1_000, "only what came since the last few tries is kept"


async def test_gather_returns_failures_as_elements(redis_server):
    async with linked(redis_server.url) as link:
        await link.command(0, "SET", "{im:0}:s", "text")
        replies = await link.gather(
            [Call(0, ("a",), ECHO), Call(0, ("INCR", "{im:0}:s")), Call(0, ("GET", "{im:0}:s"))]
        )
        assert replies[0] == b"a" and replies[2] == b"text"
        assert isinstance(replies[1], RedisUnavailableError) and "not an integer" in str(replies[1])


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(redis_server):
    async with linked(redis_server.url) as link:
        await link.ready()
        for round_ in range(20):
            calls = [asyncio.create_task(link.eval(ECHO, 0, f"{round_}.{i}")) for i in range(200)]
            await asyncio.sleep(0)
            if round_ % 2:
                await asyncio.sleep(0)
            for call in calls[::3]:
                call.cancel()
            replies = await asyncio.gather(*calls, return_exceptions=True)
            for i, reply in enumerate(replies):
                if i % 3:
                    assert reply == f"{round_}.{i}".encode()


@pytest.mark.parametrize("how", ["restart", "kill_and_restart"])
async def test_calls_go_on_over_a_restart(redis_server, how):
    async with linked(redis_server.url, timeout=20) as link:
        assert await link.eval(WRITE, 0, "0") == b"0"
        stop = asyncio.Event()

        async def work(name: int) -> int:
            n = 0
            while not stop.is_set():
                assert await link.eval(WRITE, 0, f"{name}.{n}") == f"{name}.{n}".encode()
                n += 1
            return n

        workers = [asyncio.create_task(work(i)) for i in range(20)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(getattr(redis_server, how))
        await link.eval(WRITE, 0, "after")
        stop.set()
        assert min(await asyncio.gather(*workers)) > 0


async def test_killed_connections_are_replaced(redis_server):
    async with linked(redis_server.url) as link:
        for i in range(5):
            calls = [asyncio.create_task(link.eval(ECHO, 0, str(n))) for n in range(500)]
            await asyncio.sleep(0)
            await asyncio.to_thread(redis_server.command, "CLIENT", "KILL", "TYPE", "normal")
            assert await asyncio.gather(*calls) == [str(n).encode() for n in range(500)], i


async def test_a_paused_server_is_waited_for(redis_server):
    async with linked(redis_server.url, timeout=10) as link:
        await link.ready()
        await asyncio.to_thread(redis_server.command, "CLIENT", "PAUSE", "1000", "ALL")
        assert await link.eval(ECHO, 0, "patience") == b"patience"


async def test_a_frozen_server_is_told_within_the_timeout_and_found_again(redis_server):
    async with linked(redis_server.url, timeout=0.6) as link:
        await link.ready()
        redis_server.freeze()
        try:
            with pytest.raises(RedisUnavailableError, match=r"did not answer within 0\.6 s"):
                await link.eval(ECHO, 0, "x")
        finally:
            redis_server.thaw()

        async def answers() -> bool:
            try:
                return bool(await link.eval(ECHO, 0, "again") == b"again")
            except RedisUnavailableError:
                return False

        await eventually(answers)


async def test_no_server_is_told_with_its_cause(redis_server):
    redis_server.stop()
    async with linked(redis_server.url, timeout=0.5) as link:
        with pytest.raises(RedisUnavailableError, match=f"127.0.0.1:{redis_server.port}") as caught:
            await link.eval(ECHO, 0, "x")
        assert isinstance(caught.value.__cause__, Exception)
        redis_server.start()
        assert await link.eval(ECHO, 0, "x") == b"x"


@pytest.mark.parametrize("password", [None, "wrong-password"])
async def test_a_refused_login_is_told_at_once_without_the_password(spawn_redis, password):
    server = spawn_redis("--requirepass", "right-password")
    async with linked(server.url, password=password, timeout=600) as link:
        with pytest.raises(RedisUnavailableError, match="user name or the password") as caught:
            await link.eval(ECHO, 0, "x")
        told = "".join(traceback.format_exception(caught.value)) + repr(link)
        assert "right-password" not in told and "wrong-password" not in told


async def test_the_password_is_asked_for_again_at_each_connection(spawn_redis):
    server = spawn_redis("--requirepass", "one")
    current = "one"
    async with linked(server.url, password=lambda: current) as link:
        assert await link.eval(ECHO, 0, "x") == b"x"
        await asyncio.to_thread(server.command, "CONFIG", "SET", "requirepass", "two")
        current = server.password = "two"
        await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "normal")
        assert await link.eval(ECHO, 0, "x") == b"x"


async def test_a_failing_password_callable_is_told(redis_server):
    def broken() -> str:
        raise KeyError("vault")

    async with linked(redis_server.url, password=broken, timeout=600) as link:
        with pytest.raises(RedisUnavailableError, match="credentials"):
            await link.eval(ECHO, 0, "x")


async def test_full_memory_is_told_at_once(spawn_redis):
    server = spawn_redis("--maxmemory", "1")
    async with linked(server.url, timeout=600) as link:
        with pytest.raises(RedisUnavailableError, match="out of memory"):
            await link.eval(WRITE, 0, "x")


async def test_a_missing_permission_is_told_at_once(redis_server):
    redis_server.command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-script", "-info")
    async with linked(redis_server.url, username="narrow", password="pw", timeout=600) as link:
        assert await link.command(0, "GET", "{im:0}:x") is None
        with pytest.raises(RedisUnavailableError, match="permission"):
            await link.eval(ECHO, 0, "x")


async def test_a_replica_is_not_taken_for_the_primary(redis_server, spawn_redis):
    other = spawn_redis()
    async with linked(redis_server.url, timeout=0.8) as link:
        await link.eval(WRITE, 0, "x")
        await asyncio.to_thread(redis_server.command, "REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(RedisUnavailableError) as caught:
            await link.eval(WRITE, 0, "x")
        assert "replica" in str(caught.value) or "MASTERDOWN" in repr(caught.value.__cause__)
        # A script that this server has not seen is part of the way, and never told as the reason.
        with pytest.raises(RedisUnavailableError) as caught:
            await link.eval(script(WRITE.source + " -- unseen"), 0, "x")
        assert "replica" in str(caught.value) or "MASTERDOWN" in repr(caught.value.__cause__)
        await asyncio.to_thread(redis_server.command, "REPLICAOF", "NO", "ONE")
        assert await link.eval(WRITE, 0, "y") == b"y"


async def test_a_dedicated_connection_blocks_alone_and_tells_of_its_loss(redis_server):
    async with linked(redis_server.url) as link:
        reader = await link.dedicated(0, timeout=10)
        read = asyncio.create_task(reader.call("XREAD", "BLOCK", "8000", "STREAMS", "{im:0}:st", "$"))
        await eventually(lambda: link.command(0, "CLIENT", "LIST"), what="an answer while the other blocks")
        while not read.done():
            await link.command(0, "XADD", "{im:0}:st", "*", "f", "v")
            await asyncio.sleep(0.01)
        assert (await read)[0][0] == b"{im:0}:st"
        with pytest.raises(RedisUnavailableError, match="refused"):
            await reader.call("INCR", "{im:0}:st")
        assert await reader.call("PING") == b"PONG"
        await asyncio.to_thread(redis_server.kill)
        with pytest.raises(RedisUnavailableError, match="lost"):
            await reader.call("PING")
        await reader.close()


async def test_a_dedicated_call_has_a_limit(redis_server):
    async with linked(redis_server.url) as link:
        reader = await link.dedicated(0)
        with pytest.raises(RedisUnavailableError, match="lost"):
            await reader.call("XREAD", "BLOCK", "0", "STREAMS", "{im:0}:st", "$", timeout=0.1)


def test_another_event_loop_gets_connections_of_its_own(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=5)

    async def use() -> bytes:
        return bytes(await link.eval(ECHO, 0, "x"))

    assert [asyncio.run(use()) for _ in range(3)] == [b"x"] * 3

    async def last() -> None:
        assert await use() == b"x"
        await link.close()

    asyncio.run(last())


def test_a_loop_that_ends_in_mid_call_leaves_nothing_behind(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=5)

    async def leave_running() -> None:
        await link.ready()
        await asyncio.to_thread(redis_server.command, "CLIENT", "PAUSE", "300", "ALL")
        link_call = asyncio.ensure_future(link.eval(ECHO, 0, "never read"))
        await asyncio.sleep(0.05)
        assert not link_call.done()

    asyncio.run(leave_running())

    async def use() -> None:
        assert await link.eval(ECHO, 0, "x") == b"x"
        await link.close()

    asyncio.run(use())


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child and return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_connects_by_itself_and_leaves_the_parent_alone(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=5)
    loop = asyncio.new_event_loop()

    def use() -> None:
        async def call() -> None:
            replies = await asyncio.gather(*(link.eval(ECHO, 0, f"{os.getpid()}.{i}") for i in range(50)))
            assert replies == [f"{os.getpid()}.{i}".encode() for i in range(50)]

        asyncio.run(call())

    try:
        assert loop.run_until_complete(link.eval(ECHO, 0, "parent")) == b"parent"
        before = redis_server.command("CLIENT", "LIST", "TYPE", "normal")
        assert in_child(use) == 0
        assert loop.run_until_complete(link.eval(ECHO, 0, "still")) == b"still"
        assert isinstance(before, list | bytes | str)
        loop.run_until_complete(link.close())
    finally:
        loop.close()


async def test_a_closed_link_fails_waiting_calls_and_connects_again(redis_server):
    link = Link(parse_redis_url(redis_server.url), prefix="im", timeout=30)
    await link.ready()
    redis_server.freeze()
    try:
        waiting = asyncio.create_task(link.eval(ECHO, 0, "x"))
        await asyncio.sleep(0.05)
        await link.close()
        with pytest.raises(RedisUnavailableError, match="closed"):
            await waiting
    finally:
        redis_server.thaw()
    assert await link.eval(ECHO, 0, "x") == b"x"
    await link.close()
    await link.close()


async def test_a_unix_socket(spawn_redis, tmp_path):
    path = f"/tmp/im-test-{os.getpid()}.sock"
    spawn_redis("--unixsocket", path)
    async with linked(f"unix://{path}") as link:
        assert await link.eval(ECHO, 0, "x") == b"x"


async def test_the_eviction_policy(redis_server):
    async with linked(redis_server.url) as link:
        assert await link.eviction_policy() == "noeviction"
