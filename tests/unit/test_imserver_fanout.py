# The hot path without Redis: entries of a slot's log in, frames on stand-in transports out.
# What matters: order, jumps that are told, and a plain socket's position that never claims what was not handed over.

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.position import StreamId
from imserver.entries import Fields
from imserver.fanout import SLICE, Fanout
from imserver.socket import CLOSING, OPEN, Socket
from imserver.state import Slot
from imserver.stats import Stats
from imserver.waiting import until
from tests.support.pipe import Pipe


class Live(Socket):
    """A live socket; closing it only marks it."""

    __slots__ = ("pipe",)

    def __init__(self, slot: Slot, client: bytes, envelope: bool = False) -> None:
        super().__init__(cast(Any, None))
        self.state, self.envelope = OPEN, envelope
        self.use(Pipe())
        self.member = slot.enter(self, client)
        slot.promote(self, {})

    def use(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.transport = self.raw = cast(Any, pipe)

    @property
    def sid(self) -> bytes:
        return b"boot." + self.member.client

    def close(self, code: int, reason: str = "") -> None:
        if self.state == OPEN:
            self.pipe.write(b"<%d>" % code)
            self.state = CLOSING
            self.member.slot.exit(self)


class Full(Pipe):
    """A kernel that takes so much, and a transport that asks for a pause as soon as it holds something."""

    def __init__(self, socket: Live, room: int) -> None:
        super().__init__(room)
        self.socket = socket

    def write(self, data: bytes) -> None:
        super().write(data)
        self.socket.paused = True


class World:
    """A slot at entry 10 and a fan-out that runs."""

    def __init__(self, clock_ms: float = 0.0) -> None:
        self.slot = Slot(3, 0, b"key", StreamId(1, 10))
        self.stats = Stats()
        self.gaps: list[int] = []
        self.acks: list[tuple[bytes, int, int]] = []
        self.fanout = Fanout(
            self.stats,
            {0: b"9."},
            lambda: clock_ms,
            lambda slot, client, lo, hi: self.acks.append((client, lo, hi)),
            lambda slot: self.gaps.append(slot.n),
        )

    async def dispatch(self, *entries: Fields, first: int = 11, at_once: bool = True) -> None:
        """Let the fan-out work off these entries: in one batch, or one by one."""
        task = asyncio.create_task(self.fanout.run())
        numbered = [(b"1-%d" % (first + i), f) for i, f in enumerate(entries)]
        for batch in [numbered] if at_once else [[entry] for entry in numbered]:
            self.fanout.offer(self.slot, batch)
            assert await until(lambda: not self.fanout.busy and not self.slot.queue, 5)
        task.cancel()


def message(to: bytes, payload: bytes, receipt: bytes = b"0") -> Fields:
    return [b"m", b"id", b"f", b"s", b"t", b"t", b"r", receipt, b"c", to, b"p", payload]


def channel(chan: bytes, payload: bytes) -> Fields:
    return [b"c", b"id", b"f", b"s", b"t", b"t", b"h", chan, b"p", payload]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client_sees_its_entries_in_order_whatever_their_kind(at_once):
    world = World()
    plain, other = Live(world.slot, b"me"), Live(world.slot, b"you", envelope=True)
    await world.dispatch(
        message(b"me\nyou", b"A"),
        [b"j", b"x", b"c", b"me"],
        channel(b"x", b"B"),
        message(b"you", b"-"),
        [b"r", b"i", b"f", b"you", b"c", b"me", b"s", b"d", b"t", b"t", b"p", b"C"],
        [b"l", b"x", b"c", b"a\nme"],
        channel(b"x", b"no"),
        message(b"me", b"D"),
        at_once=at_once,
    )
    assert plain.pipe.text == b'\x81\x01A\x81\x01B\x81\x25{"content":"C","receipt":"delivered"}\x81\x01D'
    assert plain.pipe.text.count(b"no") == 0
    assert b'"pos":"9.1-11"' in other.pipe.out[0] and b'"pos":"9.1-14"' in other.pipe.text
    assert (world.slot.n, world.slot.id, world.gaps) == (18, b"1-18", [])
    if at_once:
        assert len(plain.pipe.out) == 1, "a burst leaves in one write"


@pytest.mark.parametrize("at_once", [True, False])
async def test_one_entry_brings_a_receipt_for_each_of_its_receivers(at_once):
    world = World()
    plain, envelope = Live(world.slot, b"me"), Live(world.slot, b"you", envelope=True)
    for_me, for_you = (
        [b"r", b"i", b"f", b"a\nb\nc", b"c", to, b"s", b"o", b"t", b"t", b"p", b"C"] for to in (b"me", b"you")
    )
    await world.dispatch(message(b"me", b"A"), for_me, for_you, message(b"me", b"B"), at_once=at_once)
    receipt = b'\x81\x2b{"content":"C","receipt":"user not online"}'
    assert plain.pipe.text == b"\x81\x01A" + receipt * 3 + b"\x81\x01B"
    told = re.findall(rb'"to":"(.)","status":"offline","pos":"(.*?)"', envelope.pipe.text)
    assert told == [(b"a", b"9.1-12"), (b"b", b"9.1-12"), (b"c", b"9.1-13")]
    assert (world.stats.receipts, world.stats.delivered["receipt"]) == ({"offline": 6}, 6)


async def test_a_plain_socket_gets_no_more_receipts_than_its_buffer_takes():
    world = World()
    socket = Live(world.slot, b"me")
    socket.use(Full(socket, 100_000))
    payload = b"p" * 60_000
    many = b"\n".join(b"r%d" % i for i in range(400))
    await world.dispatch([b"r", b"i", b"f", many, b"c", b"me", b"s", b"o", b"t", b"t", b"p", payload])
    # Too slow now: it is closed, and what it has missed comes in a replay from before the entry.
    assert len(socket.pipe.text) < 250_000 and socket.paused and socket.place == b"1-10"


@pytest.mark.parametrize(("clock_ms", "seconds"), [(251.0, 0.25), (0.0, 0.0)])
async def test_the_time_to_a_socket_is_never_negative(clock_ms, seconds):
    # Entries are of millisecond 1: the second clock is behind Redis's, as an estimate may be.
    world = World(clock_ms)
    Live(world.slot, b"me")
    await world.dispatch(message(b"me", b"A"))
    assert world.stats.delivery.total == seconds


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_jump_is_told_once_and_the_entry_after_it_goes_on(at_once):
    world = World()
    socket = Live(world.slot, b"me")
    await world.dispatch(message(b"me", b"A"), first=11, at_once=at_once)
    await world.dispatch(message(b"me", b"B"), message(b"me", b"C"), first=15, at_once=at_once)
    assert world.gaps == [11]
    assert socket.pipe.text == b"\x81\x01A\x81\x01B\x81\x01C"


@pytest.mark.parametrize(
    "bad", [[b"m", b"id"], [b"m"], [b"c", b"id", b"f"], [b"l", b"x", b"c"], [b"zz", b"y"]], ids=str
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_entry_that_cant_be_read_stops_nothing(bad, at_once):
    world = World()
    socket = Live(world.slot, b"me")
    await world.dispatch(message(b"me", b"A"), bad, message(b"me", b"B"), at_once=at_once)
    assert socket.pipe.text == b"\x81\x01A\x81\x01B"
    assert world.slot.n == 13


@pytest.mark.parametrize("envelope", [True, False])
async def test_what_came_before_a_close_is_written_before_it(envelope):
    world = World()
    socket = Live(world.slot, b"me", envelope)
    await world.dispatch(message(b"me", b"AAA"), [b"d", b"me", b"s", b"why"], message(b"me", b"BBB"))
    assert socket.pipe.text.endswith(b"<4500>")
    assert b"AAA" in socket.pipe.text and b"BBB" not in socket.pipe.text


async def test_a_disconnect_spares_sockets_that_were_opened_after_it():
    world = World()
    old, new = Live(world.slot, b"me"), Live(world.slot, b"me")
    old.joined, new.joined = 10, 11
    await world.dispatch([b"d", b"me", b"s", b""])
    assert old.state == CLOSING and new.state == OPEN


async def test_an_evict_closes_the_one_socket_that_it_names():
    world = World()
    socket, other = Live(world.slot, b"me"), Live(world.slot, b"you")
    await world.dispatch([b"e", b"boot.you", b"c", b"me"], [b"e", b"boot.me", b"c", b"me"])
    assert socket.pipe.text == b"<4502>" and other.state == OPEN


async def test_a_receipt_is_acked_at_once_for_plain_and_awaited_for_envelope():
    world = World()
    plain, envelope = Live(world.slot, b"me"), Live(world.slot, b"you", envelope=True)
    plain.floor = 4
    await world.dispatch(message(b"me\nyou", b"A", b"1"), message(b"me\nyou", b"B"))
    assert world.acks == [(b"me", 4, 11)]
    assert (plain.member.pending, envelope.member.pending) == (0, 11)


STEPS = st.lists(st.sampled_from(["me", "you", "chan", "evict", "gap", "flush", "batch", "ping"]), max_size=30)
A = b"\x81\x01A"


@given(STEPS, st.integers(0, 10))
async def test_a_plain_sockets_place_never_claims_what_the_kernel_has_not_taken(steps, room):
    world = World()
    socket = Live(world.slot, b"me")
    socket.use(Pipe(room))
    world.slot.join(b"me", b"x", 5)
    batch: list[Fields] = []
    due: list[tuple[int, int]] = []  # the numbers of entries for this socket, and the bytes up to their end
    n, size = 10, 0

    async def work() -> None:
        nonlocal batch
        if batch:
            await world.dispatch(*batch, first=n - len(batch) + 1)
        batch = []

    for step in steps:
        if step in ("flush", "batch", "gap", "ping"):
            await work()
            if step == "flush":
                socket.pipe.flush(room)
            if step == "gap":
                n += 5
            if step == "ping":
                socket.send(b"\x89\x00", socket.reached)
                size += 2
            continue
        n += 1
        if step in ("me", "chan"):
            size += len(A)
            due.append((n, size))
        kinds = {"me": message(b"me", b"A"), "you": message(b"you", b"A"), "chan": channel(b"x", b"A")}
        batch.append(kinds.get(step, [b"e", b"boot.you", b"c", b"you"]))
    await work()
    assert len(socket.pipe.text) == size and socket.pipe.text.replace(b"\x89\x00", b"") == A * len(due)
    place = int(socket.place[2:])
    assert place < min((entry for entry, end in due if end > socket.pipe.taken), default=10**9)
    # What is still written to the transport is held; what has drained is so at the next look, as before a leave.
    assert socket.held or not socket.pipe.unsent
    assert (socket in world.slot.stalled) == socket.held
    if not socket.unsent():
        assert socket.place == world.slot.id and not world.slot.stalled


async def test_what_the_kernel_does_not_take_goes_through_the_transport_and_in_order():
    world = World()
    socket = Live(world.slot, b"me", envelope=True)
    socket.use(Pipe(5))
    world.slot.join(b"me", b"x", 5)
    await world.dispatch(channel(b"x", b"first"), message(b"me", b"second"), at_once=False)
    assert (
        socket.held and socket.pipe.taken == 5 and socket.pipe.text.index(b"first") < socket.pipe.text.index(b"second")
    )
    socket.pipe.flush()
    sent = socket.pipe.taken
    await world.dispatch(channel(b"x", b"third"), first=13)
    assert not socket.held and socket.pipe.taken > sent and b"third" in socket.pipe.text
    assert socket not in world.slot.stalled, "only plain sockets have a place"


class Counting(Pipe):
    """Counts the writes of all sockets that share `writes`, and remembers when its own first one came."""

    def __init__(self, writes: list[int]) -> None:
        super().__init__()
        self.writes = writes
        self.first: int | None = None

    def send(self, data: bytes) -> int:
        self.first = self.writes[0] if self.first is None else self.first
        self.writes[0] += 1
        return super().send(data)


async def turns_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn, as often as it takes."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


async def test_a_very_large_channel_holds_up_others_for_a_slice_and_order_within_a_client_holds():
    """Messages to 50,000 members over 200 slots, and in the middle of them one each for others."""
    world, writes = World(), [0]

    def live(slot: Slot, client: bytes) -> Live:
        socket = Live(slot, client)
        socket.use(Counting(writes))
        return socket

    large = [Slot(n, 0, b"large %d" % n, StreamId(1, 10)) for n in range(200)]
    members = [live(slot, b"m%d" % n) for slot in large for n in range(SLICE)]
    for socket in members:
        socket.member.slot.join(socket.member.client, b"room", 1)
    others = [live(Slot(1000 + n, 0, b"other %d" % n, StreamId(1, 10)), b"o%d" % n) for n in range(20)]
    for slot in large:
        world.fanout.offer(slot, [(b"1-11", channel(b"room", b"0"))])
    task = asyncio.create_task(world.fanout.run())
    for n, socket in enumerate(others):
        await turns_until(lambda n=n: writes[0] >= n * SLICE)  # type: ignore[misc]
        began = writes[0]
        world.fanout.offer(socket.member.slot, [(b"1-11", message(socket.member.client, b"1:1"))])
        await turns_until(lambda socket=socket: bool(socket.pipe.out))  # type: ignore[misc]
        first = cast(Counting, socket.pipe).first
        # What one slot of the channel has members, and no more.
        assert first is not None and first - began <= SLICE
    assert not all(socket.pipe.out for socket in members), "the channel was under way all the time"
    # Three that wait together leave in one write; what comes after them comes after them.
    assert await until(lambda: not world.fanout.busy, 20)
    for slot in large:
        world.fanout.offer(slot, [(b"1-%d" % (11 + n), channel(b"room", b"%d" % n)) for n in (1, 2, 3)])
    assert await until(lambda: not world.fanout.busy, 20)
    task.cancel()
    assert {socket.pipe.text for socket in members} == {b"\x81\x010\x81\x011\x81\x012\x81\x013"}


async def test_messages_without_end_do_not_starve_a_channel():
    world = World()
    room = Live(Slot(1, 0, b"room", StreamId(1, 10)), b"member")
    room.member.slot.join(b"member", b"room", 1)
    busy = [Live(Slot(10 + n, 0, b"busy %d" % n, StreamId(1, 10)), b"b%d" % n) for n in range(30)]
    world.fanout.offer(room.member.slot, [(b"1-11", channel(b"room", b"at last"))])
    task = asyncio.create_task(world.fanout.run())
    for n in range(20):
        for socket in busy:
            if not socket.member.slot.queued:
                entry = message(b"\n".join([socket.member.client] * SLICE), b"x")
                world.fanout.offer(socket.member.slot, [(b"1-%d" % (11 + n), entry)])
        await asyncio.sleep(0)
    assert room.pipe.out
    task.cancel()
