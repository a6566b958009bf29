# Replays over a log in memory: whatever the pauses, a socket gets what a member would have seen, once, in order.
# The log, the slots, the sockets' positions and the replayer are the server's own; Redis and TCP are stand-ins.

import asyncio
from time import monotonic
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imhelper.core.position import StreamId
from imserver import fanout
from imserver.entries import Fields
from imserver.fanout import Fanout
from imserver.gate import Pace
from imserver.replay import Replayer, is_member_at
from imserver.socket import OPEN, Socket
from imserver.state import Slot
from imserver.stats import Stats
from imserver.waiting import until
from tests.support.pipe import Pipe

ME = b"me"


class Frames(Pipe):
    """Takes `room` frames and then asks for a pause, as a buffer does that is full."""

    def __init__(self, socket: "Replaying", rooms: list[int]) -> None:
        super().__init__()
        self.socket = socket
        self.rooms = rooms
        self.frames = rooms.pop(0) if rooms else 10**6

    def send(self, data: bytes) -> int:
        assert self.frames > 0 or self.socket.live, "a replay wrote to a full buffer"
        self.frames -= 1
        if self.frames == 0:
            self.socket.paused = True
        return super().send(data)

    def drain(self) -> None:
        self.frames = self.rooms.pop(0) if self.rooms else 10**6
        self.socket.paused = False


class Replaying(Socket):
    """An open socket of plain mode that starts behind the cursor."""

    __slots__ = ("pipe",)

    def __init__(
        self, slot: Slot, at: int, joined: int, view: dict[bytes, list[tuple[int, int | None]]], rooms: list[int]
    ) -> None:
        super().__init__(cast(Any, None))
        self.state = OPEN
        self.envelope = False
        self.pipe = Frames(self, rooms)
        self.transport = self.raw = cast(Any, self.pipe)
        self.at, self.at_id, self.joined, self.view = at, b"1-%d" % at, joined, view
        self.member = slot.enter(self, ME)

    @property
    def frames(self) -> list[bytes]:
        """What was written, frame by frame: each is short."""
        found, data = [], self.pipe.text
        while data:
            end = 2 + data[1]
            found.append(data[:end])
            data = data[end:]
        return found


class World:
    """A log, the slot of a server whose cursor is at its end or `lag` before it, and the parts that feed a socket."""

    def __init__(self, log: list[Fields], first: int = 1, lag: int = 0) -> None:
        self.log = [(b"1-%d" % (first + i), fields) for i, fields in enumerate(log)]
        self.slot = Slot(3, 0, b"key", StreamId(1, first + len(log) - 1 - lag))
        self.gaps: list[Socket] = []
        self.acks: list[int] = []
        self.fanout = Fanout(Stats(), {0: b"9."}, lambda: 0.0, self._acked, lambda slot: None)
        self.replayer = Replayer(self.fanout, self._scan, self._acked, self._gap, 65536)

    def _acked(self, slot: Slot, client: bytes, lo: int, hi: int) -> None:
        self.acks.append(hi)

    def _gap(self, socket: Socket) -> None:
        self.gaps.append(socket)
        self.slot.exit(socket)
        socket.state = -1

    async def _scan(self, slot: Slot, after: bytes, upto: bytes, count: int) -> list[tuple[bytes, Fields]]:
        low, high = int(after[2:]), len(self.log) if upto == b"+" else int(upto[2:])
        return [e for e in self.log if low < int(e[0][2:]) <= high][:count]

    def read(self, count: int) -> None:
        """The reader brings so many more entries."""
        if count and (batch := self.log[self.slot.n : self.slot.n + count]):
            self.fanout.offer(self.slot, [(entry_id, list(fields)) for entry_id, fields in batch])
            while self.slot.queue:
                self.fanout._visit(self.slot)
            self.slot.queued = False

    async def feed(self, socket: Replaying) -> None:
        """Until the socket is live, given up, or waits for the cursor."""
        while socket in self.slot.waiting:
            await self.replayer._feed(self.slot)
            if socket in self.slot.waiting:
                if not socket.paused and not socket.behind(self.slot.n):
                    return
                assert socket.paused, "not fed, and not waiting for room"
                socket.pipe.drain()


def receipts(*receivers: bytes) -> Fields:
    return [b"r", b"i", b"f", b"\n".join(receivers), b"c", ME, b"s", b"d", b"t", b"j", b"p", b"5"]


STEPS = st.lists(st.sampled_from(["msg", "other", "x", "y", "join x", "leave x", "join y", "leave y"]), max_size=60)


def build(
    steps: list[str], start: int, online_since: int = 0
) -> tuple[list[Fields], list[bytes], dict[bytes, list[tuple[int, int | None]]], set[bytes]]:
    """The log that the steps make; what `me` must get after entry `start`; its view at the end and its channels.

    It can go offline, which is written into no log, in the first `online_since` steps; `start` is a number of entries.
    """
    log: list[Fields] = []
    wanted: list[bytes] = []
    view: dict[bytes, list[tuple[int, int | None]]] = {}
    for index, step in enumerate(steps):
        n = len(log) + 1
        payload = b"p%d" % n
        word, _, chan = step.partition(" ")
        name = (chan or word).encode()
        spans = view.setdefault(name, []) if chan else view.get(name, [])
        inside = bool(spans) and spans[-1][1] is None
        if word == "msg" or word == "other":
            to = ME if word == "msg" else b"somebody"
            log.append([b"m", b"i", b"f", b"s", b"t", b"t", b"r", b"1", b"c", b"a\n" + to, b"p", payload])
            got = word == "msg"
        elif word == "join":
            # Redis writes no second entry for a member; here one of another client takes its place.
            log.append([b"j", name, b"c", b"other" if inside else ME])
            got = False
            if not inside:
                spans.append((n, None))
        elif word == "leave":
            log.append([b"l", name, b"c", b"a\n" + ME if inside else b"a"])
            got = False
            if inside:
                spans[-1] = (spans[-1][0], n)
        elif word == "offline":
            got = False
            for ended in view.values() if index < online_since else ():
                if ended and ended[-1][1] is None:
                    ended[-1] = (ended[-1][0], n)
        else:
            log.append([b"c", b"i", b"f", b"s", b"t", b"t", b"h", name, b"p", payload])
            got = inside
        if got and n > start:
            wanted.append(payload)
    return log, wanted, view, {c for c, spans in view.items() if spans and spans[-1][1] is None}


@settings(max_examples=300)
@given(STEPS, st.floats(0, 1), st.floats(0, 1), st.lists(st.integers(1, 4), max_size=20))
@example(["msg", "join x", "leave x", "join x", "x"], 0.0, 0.0, [1])
async def test_a_replay_gives_what_a_member_would_have_seen_whatever_the_pauses(steps, behind, later, rooms):
    start = int(len(steps) * behind)
    joined = start + int((len(steps) - start) * later)
    log, wanted, _, chans = build(steps, start)
    world = World(log)
    # The handshake knew the memberships of its own moment; what came later it learns from the log.
    view = build(steps[:joined], 0)[2]
    socket = Replaying(world.slot, start, joined, view, list(rooms))
    await world.feed(socket)
    assert not world.gaps and socket.live
    assert [frame[2:] for frame in socket.pipe.out] == wanted
    assert set(socket.member.chans or {}) == chans
    assert set(world.slot.fans) == chans
    plain_messages = [n for n, step in enumerate(steps, 1) if step == "msg" and n > start]
    assert world.acks == plain_messages


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["msg", "x", "y", "join x", "leave x", "join y", "offline"]), max_size=40),
    *[st.floats(0, 1)] * 3,
    st.lists(st.integers(1, 4), max_size=10),
    st.lists(st.integers(0, 5), max_size=12),
)
@example(["join x", "msg", "x", "offline", "msg"], 0.2, 0.8, 0.9, [], [])
@example(["join x", "msg", "x", "offline", "x"], 0.2, 0.8, 0.0, [], [])
@example(["join x", "msg", "x", "offline", "x"], 0.2, 0.8, 0.3, [], [])
@example(["join x", "leave x", "x", "join x", "x"], 0.0, 1.0, 1.0, [], [1, 1, 1])
async def test_a_reader_that_is_behind_what_a_handshake_knew_changes_nothing(
    steps, behind, later, lagging, rooms, batches
):
    """Found by chaos: a client went offline and came back, all before the server's reader had caught up."""
    # In steps: where the client's earlier socket was, and when the handshake looked.
    before = int(len(steps) * behind)
    seen = before + int((len(steps) - before) * later)
    start = len(build(steps[:before], 0)[0])
    log, wanted, _, chans = build(steps, start, online_since=seen)
    world = World(log, lag=int(len(log) * lagging))
    known, _, view, _ = build(steps[:seen], 0, online_since=seen)
    socket = Replaying(world.slot, start, len(known), view, list(rooms))
    for batch in [*batches, len(steps)]:
        await world.feed(socket)
        world.read(batch)
    await world.feed(socket)
    assert not world.gaps and socket.live
    assert [frame[2:] for frame in socket.frames] == wanted
    assert set(socket.member.chans or {}) == chans


@given(st.lists(st.integers(1, 5), max_size=8), st.lists(st.integers(1, 4), max_size=20))
async def test_the_receipts_of_an_entry_stop_at_a_full_buffer_and_go_on_after_it(counts, rooms):
    world = World([receipts(*[b"r%d" % i for i in range(count)]) for count in counts])
    socket = Replaying(world.slot, 0, len(counts), {}, list(rooms))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "PIECE_BYTES", 1)
        await world.feed(socket)
    assert socket.live and not world.gaps and not world.replayer._midway
    # No write is more than one frame, and none comes twice or is left out.
    frame = b'\x81\x23{"content":5,"receipt":"delivered"}'
    assert socket.pipe.out == [frame] * sum(counts)


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 10))
async def test_missing_history_is_a_gap_and_never_passed_over(length, first, behind):
    world = World([[b"x", b"unknown kind"]] * length, first=first + 1)
    at = max(0, first - behind)
    socket = Replaying(world.slot, at, first + length, {}, [])
    await world.feed(socket)
    if at == first:
        assert socket.live and not world.gaps
    else:
        assert world.gaps == [socket]


async def test_a_hole_in_the_log_is_a_gap_for_those_before_it_only():
    world = World([[b"x", b"unknown kind"]] * 20)
    del world.log[9]
    before = Replaying(world.slot, 3, 20, {}, [])
    after = Replaying(world.slot, 15, 20, {}, [])
    await world.feed(after)
    assert world.gaps == [before] and after.live


async def test_an_empty_log_is_a_gap():
    world = World([[b"x", b"unknown kind"]] * 3)
    world.log.clear()
    socket = Replaying(world.slot, 1, 3, {}, [])
    await world.feed(socket)
    assert world.gaps == [socket]


async def test_sockets_of_one_slot_share_scans():
    world = World([[b"x", b"unknown kind"]] * 500)
    sockets = [Replaying(world.slot, n, 500, {}, []) for n in range(0, 500, 10)]
    scans = 0
    scan = world._scan

    async def counted(slot: Slot, after: bytes, upto: bytes, count: int) -> list[tuple[bytes, Fields]]:
        nonlocal scans
        scans += 1
        return await scan(slot, after, upto, count)

    world.replayer._scan = counted
    await world.feed(sockets[0])
    assert all(s.live for s in sockets) and scans < 10


async def test_many_that_come_one_by_one_share_scans_too():
    world = World([[b"x", b"unknown kind"]] * 20)
    rate, burst, scans = 50.0, 3, 0
    world.replayer._pace = Pace(rate, burst)
    scan = world._scan

    async def counted(slot: Slot, after: bytes, upto: bytes, count: int) -> list[tuple[bytes, Fields]]:
        nonlocal scans
        scans += 1
        return await scan(slot, after, upto, count)

    world.replayer._scan = counted
    workers = [asyncio.create_task(world.replayer.work()) for _ in range(4)]
    began = monotonic()
    sockets = []
    for _ in range(300):
        sockets.append(Replaying(world.slot, 10, 20, {}, []))
        world.replayer.want(world.slot)
        await asyncio.sleep(0)
    assert await until(lambda: all(s.live for s in sockets), 20)
    assert 0 < scans <= burst + rate * (monotonic() - began)
    for worker in workers:
        worker.cancel()


def test_membership_is_from_after_the_join_until_before_the_leave():
    slot = Slot(3, 0, b"key", StreamId(1, 50))
    socket = Replaying(slot, 0, 0, {b"x": [(10, 20), (30, None)]}, [])
    assert [n for n in range(40) if is_member_at(socket, b"x", n)] == [*range(11, 20), *range(31, 40)]
    assert not is_member_at(socket, b"y", 15)
    socket.view = None
    assert not is_member_at(socket, b"x", 15)


async def test_a_worker_feeds_what_is_wanted_and_wanting_twice_is_one():
    world = World([[b"x", b"unknown kind"]] * 5)
    socket = Replaying(world.slot, 0, 5, {}, [])
    worker = asyncio.create_task(world.replayer.work())
    for _ in range(3):
        world.replayer.want(world.slot)
    assert await until(lambda: socket.live, 5)
    worker.cancel()
