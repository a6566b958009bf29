# A blocked read is ended for each new slot, and for several at once by few calls.
# Redis is a stand-in that answers when the test says so; real reads are in tests/integration/.

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imhelper.core.position import StreamId
from imserver.reader import Reader
from imserver.state import Slot


async def test_a_slot_that_comes_while_a_wake_is_under_way_is_not_forgotten():
    asked, answers = 0, asyncio.Semaphore(0)
    jobs: list[asyncio.Task[None]] = []

    async def eval_(script: Any, group: int, *args: Any) -> int:
        nonlocal asked
        assert (script.name, args) == ("wake", ("boot", "w", ""))
        asked += 1
        await answers.acquire()
        return 1

    hub: Any = SimpleNamespace(tag=lambda group: "{im:0}", boot="boot", link=SimpleNamespace(eval=eval_))
    hub.spawn = lambda job: jobs.append(asyncio.create_task(job))
    reader = Reader(hub, 0)
    reader.wake()
    await asyncio.sleep(0)
    # Redis may have carried the first out already, and the read gone on without these.
    for _ in range(3):
        reader.wake()
    answers.release()
    await asyncio.sleep(0.01)
    assert (asked, len(jobs)) == (2, 1)
    answers.release()
    await asyncio.wait_for(jobs[0], 5)
    reader.wake()
    answers.release()
    await asyncio.wait_for(jobs[1], 5)
    assert asked == 3


@pytest.mark.parametrize(
    ("slots", "news", "milliseconds"),
    [(0, 0, 5), (128, 0, 5), (512, 0, 5.12), (1024, 0, 10.24), (128, 5, 6), (128, 100, 10), (1024, 100, 10.24)],
)
async def test_where_a_read_costs_or_brings_much_there_are_fewer(slots: int, news: int, milliseconds: float):
    fanout = SimpleNamespace(busy=False, offer=lambda slot, batch: None)
    held = {n: Slot(n, 0, b"log:%d" % n, StreamId(0, 0)) for n in range(slots)}
    hub: Any = SimpleNamespace(tag=lambda group: "{im:0}", boot="boot", slots=held, fanout=fanout)
    reader = Reader(hub, 0)

    async def exchange(packed: bytes) -> list[Any]:
        return [[held[n].key, [[b"1-1", [b"m", b"payload"]]]] for n in range(news)]

    assert await reader._read(cast(Any, SimpleNamespace(exchange=exchange))) == (news > 0)
    assert reader._pause * 1000 == pytest.approx(milliseconds)


async def test_a_canary_that_came_back_leaves_no_lag(monkeypatch: pytest.MonkeyPatch):
    sent: list[str] = []

    async def eval_(script: Any, group: int, *args: Any) -> int:
        sent.append(args[2])
        return 1

    stats = SimpleNamespace(reader_lag=0.0)
    hub: Any = SimpleNamespace(tag=lambda group: "{im:0}", boot="boot", link=SimpleNamespace(eval=eval_), stats=stats)
    now = 1000.0
    monkeypatch.setattr("imserver.reader.monotonic", lambda: now)
    reader = Reader(hub, 0)
    for fraction in (0.12345649, 0.12345651, 0.99999999):
        now = round(now) + 1 + fraction
        await reader._send_canary()
        now += 0.5
        assert reader.lag == pytest.approx(0.5, abs=1e-5)
        reader._wake_entry(b"c", sent[-1].encode())
        assert reader.lag == 0
