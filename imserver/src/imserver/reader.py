"""Reads the logs of one group's slots with one blocking XREAD, and the server's own wake stream with them.
What comes back through the wake stream proves that the whole way works: that is the canary."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from imhelper._backend.aio import Dedicated
from imhelper._backend.common import Verdict, judge
from imhelper.core import keys, scripts
from imhelper.core.position import parse_id
from imhelper.errors import RedisUnavailableError

from .portion import ENTRY_BYTES, Portion
from .question import Question
from .reign import Reign, failed_over, reign_of
from .state import Slot

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Reader"]

log = logging.getLogger(__name__)

BLOCK_SECONDS = 2.0
# At most some 200 reads a second: under load entries come in batches. A read costs a server 0.4 ms and Redis up to 1 µs
# a stream, news or not. So there are fewer, up to half, where each brings much (at 10,000 messages a second two servers
# pay a seventh less for each), and with many slots: the reads of a server take no more than a tenth of Redis's time.
PAUSE_SECONDS = 0.005
PAUSE_SECONDS_A_NEWS, PAUSE_SECONDS_LOADED = 0.0002, 0.010
PAUSE_SECONDS_A_STREAM = 0.00001
READ_BYTES = 4194304
# After so long without a read much may have come together.
STALL_SECONDS = 0.5
CANARY_SECONDS = 1.0
CANARY_PATIENCE = 4.0
RETRY_SECONDS = 0.25


class Reader:
    """Follows the slots of one group that the hub holds. `run` and `run_canary` never end by themselves."""

    def __init__(self, hub: Hub, group: int) -> None:
        self._hub = hub
        self.group = group
        self._wake_key = keys.wake(hub.tag(group), hub.boot).encode()
        self._question = Question(self._wake_key)
        self._wake_id = b"0-0"
        self._portion = Portion(READ_BYTES, hub.settings.max_payload_bytes + ENTRY_BYTES)
        # Where the next read begins that can't ask for all slots.
        self._turn = 0
        # How many streams the last read brought something of; whether more waits that it did not ask for.
        self._news = 0
        self._more = False
        self._answered = 0.0
        self._connection: Dedicated | None = None
        self._unsure = True
        self._waking = self._wanted = False
        self._canary_sent = 0.0
        self._canary_seen = monotonic()
        self.seen_once = False
        # The Redis process that answered last, and when it was asked: it lived then. When the answer was read says
        # nothing, for this process may have been frozen in between.
        self._reign: Reign | None = None
        self._alive_at = 0.0
        # The process that sent this reader elsewhere while it was a primary itself.
        self._left: Reign | None = None

    @property
    def healthy(self) -> bool:
        """Whether what was written to the wake stream came back lately."""
        return self.seen_once and monotonic() - self._canary_seen < CANARY_PATIENCE

    @property
    def _pause(self) -> float:
        """Seconds between the beginnings of two reads of which the first brought something."""
        if self._more:
            return 0.0
        loaded = min(PAUSE_SECONDS_LOADED, PAUSE_SECONDS + PAUSE_SECONDS_A_NEWS * self._news)
        return max(loaded, PAUSE_SECONDS_A_STREAM * len(self._question.slots))

    @property
    def lag(self) -> float:
        """Seconds since the oldest canary that has not come back; 0 when all have."""
        return max(0.0, monotonic() - self._canary_sent) if self._canary_sent > self._canary_seen else 0.0

    def doubt(self) -> None:
        """Redis may have lost writes: compare before the next read."""
        self._unsure = True
        self.wake()

    def wake(self) -> None:
        """Make a blocked read return at once, for there is a new slot to read."""
        self._wanted = True
        if not self._waking:
            self._waking = True
            self._hub.spawn(self._wake())

    async def _wake(self) -> None:
        try:
            # Who asks while one is under way asks again: the read that it ends may have begun anew without the slot.
            while self._wanted:
                self._wanted = False
                await self._hub.link.eval(scripts.load("wake"), self.group, self._hub.boot, "w", "")
        except RedisUnavailableError:
            log.debug("a wake found Redis unavailable: the read has ended by itself then")
        finally:
            self._waking = False

    async def run(self) -> None:
        """Read for ever; connect again when the connection is lost or silent."""
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._hub.link.dedicated(self.group, timeout=BLOCK_SECONDS + 3.0)
                    self._unsure = True
                    self._wake_id = b"0-0"
                if self._unsure:
                    self._unsure = False
                    await self._verify()
                began = monotonic()
                if await self._read(self._connection):
                    await asyncio.sleep(max(0.0, self._pause - (monotonic() - began)))
            except RedisUnavailableError as error:
                await self._failed(error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _failed(self, error: RedisUnavailableError) -> None:
        """Give the connection up, unless its server only asks to come again: a hash slot is being moved, it loads."""
        verdict = judge(error.__cause__) if error.__cause__ is not None else Verdict.REFUSED
        if verdict is Verdict.WAIT and self._connection is not None:
            log.debug("the reader of group %d waits: %s", self.group, error)
            self._unsure = True
            return
        if verdict is Verdict.MOVED:
            log.info("the keys of group %d are with another node now", self.group)
            await self._look_back()
        else:
            log.warning("the reader of group %d lost Redis: %s", self.group, error)
        await self._hang_up()

    async def _look_back(self) -> None:
        """Learn what is with the process that sends this reader elsewhere: still a primary, or overthrown?"""
        if self._connection is not None:
            with suppress(RedisUnavailableError):
                self._left = reign_of(await self._connection.call("INFO"))

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _read(self, connection: Dedicated) -> bool:
        busy, question = self._hub.fanout.busy, self._question
        slots = [s for s in self._hub.slots.values() if s.group == self.group and not s.queued]
        asked = monotonic()
        if asked - self._answered > STALL_SECONDS:
            self._portion.stalled()
        width, count = self._portion.share(len(slots))
        part = width < len(slots)
        question.ask_for(self._next(slots, width) if part else slots)
        by_key = question.by_key
        packed = question.packed(count, None if busy or part else int(BLOCK_SECONDS * 1000), self._wake_id)
        reply = await connection.exchange(packed)
        self._alive_at, self._answered = asked, monotonic()
        self._news = len(reply or ())
        entries = size = most = 0
        for key, batch in reply or ():
            most = max(most, len(batch))
            if key == self._wake_key:
                self._woken(batch)
            elif self._hub.slots.get(by_key[key].number) is by_key[key]:
                entries += len(batch)
                size += sum([len(fields[-1]) for _, fields in batch]) + ENTRY_BYTES * len(batch)
                self._hub.fanout.offer(by_key[key], batch)
        self._more = self._portion.brought(entries, size, part or most >= count, len(slots))
        return bool(reply) or busy

    def _next(self, slots: list[Slot], width: int) -> list[Slot]:
        """Some of the slots, in turn."""
        self._turn = at = (self._turn + width) % len(slots)
        return (slots[at:] + slots[:at])[:width]

    def _woken(self, batch: list[Any]) -> None:
        self._wake_id = batch[-1][0]
        for entry_id, (kind, value) in batch:
            try:
                self._wake_entry(kind, value)
            except ValueError:
                # Of another release, or by a foreign hand: no reason to end.
                log.exception("group %d: the wake entry %s is not readable", self.group, entry_id.decode())

    def _wake_entry(self, kind: bytes, value: bytes) -> None:
        if kind == b"c":
            self._canary_seen = max(self._canary_seen, float(value))
            self.seen_once = True
            self._hub.stats.reader_lag = monotonic() - float(value)
        elif kind == b"q":
            self._hub.spawn(self._hub.inquiry.answer(self.group, value))
        elif kind == b"a":
            self._hub.inquiry.answered(value)
        elif kind == b"p":
            self._hub.poke()

    async def run_canary(self) -> None:
        """Write to the own wake stream once a second; when nothing comes back though Redis answers, reconnect."""
        while True:
            await self._send_canary()
            await asyncio.sleep(CANARY_SECONDS)

    async def _send_canary(self) -> None:
        # As it comes back: a difference in the last digit would pass for a canary that is still under way.
        sent = round(monotonic(), 6)
        try:
            written = await self._hub.link.eval(scripts.load("wake"), self.group, self._hub.boot, "c", f"{sent:.6f}")
        except RedisUnavailableError:
            # The way to Redis is down as a whole; that is not the reader's fault.
            self._canary_seen = monotonic()
            return
        if self._canary_sent <= self._canary_seen:
            self._canary_sent = sent
        if written and monotonic() - self._canary_seen > CANARY_PATIENCE and self._connection is not None:
            log.warning("group %d: what is written does not come back; the reader connects again", self.group)
            self._canary_seen = monotonic()
            self.seen_once = False
            await self._connection.close()

    async def _verify(self) -> None:
        hub = self._hub
        slots = [s for s in hub.slots.values() if s.group == self.group]
        known = hub.incarnation.get(self.group, b"").rstrip(b".")
        args = [x for s in slots for x in (s.number, s.read)]
        asked = monotonic()
        incarnation, uptime, *identity, lasts = await self._compare("0", known, args)
        reign, gap = Reign(*identity), monotonic() - self._alive_at
        if self._reign is not None and reign.run != self._reign.run and self._left is None:
            # Others have found the new one before this reader's connection was sent there.
            await self._look_back()
        if self._reign is not None and failed_over(self._reign, gap, reign, int(uptime), self._left):
            log.warning("group %d: another Redis is the primary now", self.group)
            incarnation, *_, lasts = await self._compare("1", known, args)
        self._reign, self._left = reign, None
        self._alive_at = asked
        if known and incarnation != known:
            log.warning("group %d: Redis lost writes; incarnation %s", self.group, incarnation.decode())
            hub.losses.of(self.group, hub.connected)
            for slot, last in zip(slots, lasts, strict=True):
                _rewind(slot, last)
            hub.incarnation[self.group] = incarnation + b"."
        elif not known:
            hub.incarnation[self.group] = incarnation + b"."

    async def _compare(
        self, force: str, known: bytes, args: list[int | bytes]
    ) -> tuple[bytes, bytes, bytes, bytes, bytes, list[bytes]]:
        incarnation, uptime, run, history, before, *lasts = await self._hub.link.eval(
            scripts.load("verify"), self.group, force, known, *args
        )
        return incarnation, uptime, run, history, before, lasts


def _rewind(slot: Slot, last: bytes) -> None:
    """Go back to where the log ends now, if it ends before what was read."""
    if parse_id(last) < parse_id(slot.read):
        slot.queue.clear()
        slot.read = slot.id = last
        slot.n = parse_id(last).n
        for socket in [s for member in slot.members.values() for s in member.sockets]:
            # Numbers begin again below: what comes now is after this socket's beginning, too.
            socket.floor, socket.joined = min(socket.floor, slot.n), min(socket.joined, slot.n)
    for socket in slot.waiting:
        if socket.at > slot.n:
            socket.at, socket.at_id = slot.n, slot.id
