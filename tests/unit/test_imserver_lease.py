# The lease goes on while what was left by others is cleared away, however long that takes.
# Redis is a stand-in that answers each script; a reclaim is answered when the test says so.

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper.errors import RedisUnavailableError
from imserver.lease import LeaseKeeper
from imserver.waiting import until


class Redis:
    """One other boot had the name, and one boot without a lease is known to the group."""

    def __init__(self) -> None:
        self.beats = 0
        self.reclaimed: list[str] = []
        self.may_answer = asyncio.Event()
        self.refuses = False

    async def eval(self, script: Any, group: int | None, *args: Any) -> Any:
        if script.name == "beat":
            self.beats += 1
            return [b"ok", b"1000", b"run", b"older" if args[2] else b"", b"", b"", []]
        if script.name == "orphans":
            return [[b"me", b"orphan"], []]
        assert script.name == "reclaim"
        self.reclaimed.append(args[0])
        await self.may_answer.wait()
        if self.refuses:
            raise RedisUnavailableError("gone")
        return [1, 0, b"0"]


@pytest.fixture
def redis():
    return Redis()


@pytest.fixture
async def keeper(redis):
    jobs: set[asyncio.Task[None]] = set()
    settings = SimpleNamespace(server_name="s0", lease_seconds=0.2, url="ws://h/ws", grace_seconds=1.0)
    stats = SimpleNamespace(reclaims=0, fenced=0)
    hub: Any = SimpleNamespace(link=redis, settings=settings, stats=stats, boot="me", boot_raw=b"me", groups=1)
    hub.spawn = lambda job: jobs.add(asyncio.create_task(job))
    hub.topology, hub.draining, hub.ending, hub.open_count, hub.redis_up = None, False, False, 0, True
    hub.retention = (1, 1, 1)
    made = LeaseKeeper(hub, None)
    task = asyncio.create_task(made.run())
    yield made
    for each in (task, *jobs):
        each.cancel()
    await asyncio.gather(task, *jobs, return_exceptions=True)
    assert all(job.cancelled() or job.exception() is None for job in jobs)


async def many_beats(redis: Redis) -> None:
    before = redis.beats
    assert await until(lambda: redis.beats >= before + 8, 20)


async def test_beats_go_on_while_earlier_boots_are_reclaimed(redis, keeper):
    await many_beats(redis)
    assert redis.reclaimed == ["older", "orphan"], "each once, as long as it is under way"
    redis.may_answer.set()
    await many_beats(redis)
    assert keeper._hub.stats.reclaims >= 4


async def test_a_reclaim_that_redis_cut_short_is_taken_up_again(redis, keeper):
    redis.refuses = True
    redis.may_answer.set()
    await many_beats(redis)
    redis.refuses = False
    await many_beats(redis)
    assert redis.reclaimed.count("orphan") > 2 and keeper._hub.stats.reclaims >= 2
