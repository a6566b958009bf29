# A blocked read is ended for each new slot, and for several at once by few calls.
# Redis is a stand-in that answers when the test says so; real reads are in tests/integration/.

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imhelper.core.position import StreamId
from imserver.reader import READ_BYTES, Reader
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
    hub.settings = SimpleNamespace(max_payload_bytes=65536)
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
    hub.settings = SimpleNamespace(max_payload_bytes=1000)
    reader = Reader(hub, 0)

    async def exchange(packed: bytes) -> list[Any]:
        return [[held[n].key, [[b"1-1", [b"m", b"payload"]]]] for n in range(news)]

    assert await reader._read(cast(Any, SimpleNamespace(exchange=exchange))) == (news > 0)
    assert reader._pause * 1000 == pytest.approx(milliseconds)


class Logs:
    """Slots' logs, read by the XREAD that a reader sends; notes how large the replies were."""

    def __init__(self, slots: int, entries: int) -> None:
        self.slots = {n: Slot(n, 0, b"log:%d" % n, StreamId(0, 0)) for n in range(slots)}
        self.left: dict[bytes, int] = {slot.key: entries for slot in self.slots.values()}
        self.got: dict[bytes, list[bytes]] = {key: [] for key in self.left}
        self.payload = b""
        self.sizes: list[int] = []
        self.busy = False

    async def exchange(self, packed: bytes) -> list[Any]:
        words = packed.split(b"\r\n")[2::2]
        count, streams = int(words[words.index(b"COUNT") + 1]), words[words.index(b"STREAMS") + 1 :]
        reply: list[Any] = []
        for key in streams[1 : len(streams) // 2]:
            taken = min(count, self.left[key])
            self.left[key] -= taken
            first = len(self.got[key])
            if taken:
                ids = [b"1-%d" % (first + n + 1) for n in range(taken)]
                reply.append([key, [[entry_id, [b"m", self.payload]] for entry_id in ids]])
        assert reply or b"BLOCK" not in words or not sum(self.left.values()), "it would wait though there is more"
        self.sizes.append(len(self.payload) * sum(len(ids) for _, ids in reply))
        return reply

    def offer(self, slot: Slot, batch: list[Any]) -> None:
        self.got[slot.key] += [entry_id for entry_id, _ in batch]
        slot.read = batch[-1][0]


@pytest.mark.parametrize(("payload", "slots", "entries"), [(65536, 128, 40), (65536, 1, 1000), (16 << 20, 16, 3)])
async def test_a_backlog_of_any_size_comes_in_replies_of_a_few_megabytes(payload: int, slots: int, entries: int):
    logs = Logs(slots, 0)
    hub: Any = SimpleNamespace(tag=lambda group: "{im:0}", boot="boot", slots=logs.slots, fanout=logs)
    hub.settings = SimpleNamespace(max_payload_bytes=payload)
    reader, connection = Reader(hub, 0), cast(Any, logs)
    # Much that is small comes first, in many streams; then nobody reads for a while, and large messages come together.
    logs.left, logs.payload = dict.fromkeys(logs.left, 500), b"small"
    while sum(logs.left.values()):
        await reader._read(connection)
    assert len(logs.sizes) < 16, "what is small comes many at a time"
    reader._answered -= 1
    logs.left, logs.payload = dict.fromkeys(logs.left, entries), bytes(payload)
    logs.sizes.clear()
    while sum(logs.left.values()):
        await reader._read(connection)
    assert max(logs.sizes) <= max(READ_BYTES, payload)
    assert all(ids == [b"1-%d" % (n + 1) for n in range(500 + entries)] for ids in logs.got.values())


async def test_a_canary_that_came_back_leaves_no_lag(monkeypatch: pytest.MonkeyPatch):
    sent: list[str] = []

    async def eval_(script: Any, group: int, *args: Any) -> int:
        sent.append(args[2])
        return 1

    stats = SimpleNamespace(reader_lag=0.0)
    hub: Any = SimpleNamespace(tag=lambda group: "{im:0}", boot="boot", link=SimpleNamespace(eval=eval_), stats=stats)
    hub.settings = SimpleNamespace(max_payload_bytes=65536)
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
