"""What a server tells Redis about its sockets after the handshake, in batches: gone, acked, where plain ones are.
Nothing is dropped while Redis is away: what could not be told is told later, and a repeated call changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from imhelper.core import scripts
from imhelper.core.position import parse_id
from imhelper.errors import RedisUnavailableError

from .groups import each
from .lease import Fenced
from .socket import OPEN, Socket
from .state import Member, Slot

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["NOT_BEGUN", "NOWHERE", "Presence"]

log = logging.getLogger(__name__)

BATCH = 200
# Positions as the script `close` knows them: where the socket started, for nothing was written to it; and none.
NOT_BEGUN, NOWHERE = b"", b"-"
RETRY_SECONDS = 0.5
# How long the reader gets to work off what a slot's log holds more than this server has seen.
CATCH_UP_SECONDS = 0.02
POSITIONS_SECONDS = 1.0
# How long an ack waits for what it speaks of; one of the far future never counts.
AHEAD_SECONDS = 10.0
# A handshake elsewhere may have seen a socket on record just before its end was told, and ask for it this much later.
ENDED_SECONDS = 10.0
# A slot that lost its last client is read a little longer: clients come back.
IDLE_SECONDS = 30.0


class Presence:
    """Queues what `gone` and `ack` are told, one queue a group, and empties them in batches.

    The queues are bounded by what causes them: one item a socket that was open, one a client and reading of its log.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._gone: dict[int, deque[tuple[int, bytes]]] = {}
        self._acks: dict[int, dict[tuple[bytes, int], tuple[int, Slot]]] = {}
        self._work = asyncio.Event()
        self._restore = asyncio.Event()
        # A position must never be on record before the receipts of what lies before it: nobody would ask for it again.
        self._telling: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        # What was told of each slot: the position, and the number up to which its sockets are known to it.
        self._sent: dict[int, tuple[bytes, int]] = {}
        self._ended: dict[int, bytes] = {}
        self._told: deque[tuple[float, list[int]]] = deque()
        self._ahead: dict[Socket, tuple[int, float]] = {}

    @property
    def idle(self) -> bool:
        """Whether everything was told."""
        return not any(self._gone.values()) and not any(self._acks.values())

    def gone(self, group: int, number: int, pos: bytes) -> None:
        """A socket that Redis may know is no more. `pos` is where a plain one was, or one of the two below."""
        self._gone.setdefault(group, deque()).append((number, pos))
        if pos != NOWHERE:
            self._ended[number] = pos
        self._work.set()

    def ended(self, number: int) -> bytes | None:
        """Where a plain socket ended, as long as somebody may have seen it on record; None for any other.

        NOT_BEGUN for one that was given nothing.
        """
        return self._ended.get(number)

    def ack(self, slot: Slot, client: bytes, lo: int, hi: int) -> None:
        """The receipts of a client for entries lo < n <= hi are true."""
        if hi <= lo:
            return
        acks = self._acks.setdefault(slot.group, {})
        known = acks.get((client, lo))
        acks[client, lo] = (hi if known is None else max(hi, known[0]), slot)
        self._work.set()

    def acked_ahead(self, socket: Socket, n: int) -> None:
        """A client acks what this socket was not given yet. It counts once entry n was written to it, which is soon."""
        known, _ = self._ahead.get(socket, (0, 0.0))
        self._ahead[socket] = max(n, known), monotonic() + AHEAD_SECONDS

    def _settle_acks(self, now: float) -> None:
        for socket, (n, until) in list(self._ahead.items()):
            if socket.state == OPEN and socket.written < n and now < until:
                continue
            del self._ahead[socket]
            if socket.state == OPEN and socket.written >= n and socket.member.pending:
                self.ack(socket.member.slot, socket.member.client, socket.floor, n)

    async def run(self) -> None:
        """Tell Redis, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self.flush()
            except RedisUnavailableError as error:
                log.warning("presence waits for Redis: %s", error)
                self._work.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Tell what is queued now. Raises RedisUnavailableError with everything untold still queued."""
        await each({*self._acks, *self._gone}, self._flush_group)

    async def _flush_group(self, group: int) -> None:
        async with self._telling[group]:
            await self._flush_acks(group)
            await self._flush_gone(group)

    async def _flush_gone(self, group: int) -> None:
        hub, queue = self._hub, self._gone.get(group, deque())
        grace = int(hub.settings.grace_seconds * 1000)
        while queue:
            batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
            args = [x for item in batch for x in item]
            try:
                await self._flush_acks(group)
                await hub.link.eval(scripts.load("close"), group, hub.boot, grace, *hub.retention, *args)
            except BaseException:
                queue.extendleft(reversed(batch))
                raise
            self._told.append((monotonic() + ENDED_SECONDS, [number for number, pos in batch if pos != NOWHERE]))

    async def _flush_acks(self, group: int) -> None:
        hub, acks = self._hub, self._acks.get(group, {})
        while acks:
            batch = [(key, acks.pop(key)) for key in list(acks)[:BATCH]]
            args = [x for (client, lo), (hi, _) in batch for x in (client, lo, hi)]
            try:
                left = await hub.link.eval(scripts.load("ack"), group, *hub.retention, *args)
            except BaseException:
                for (client, lo), (hi, slot) in batch:
                    self.ack(slot, client, lo, hi)
                raise
            for ((client, lo), (hi, slot)), count in zip(batch, left, strict=True):
                if count < 0:
                    self.ack(slot, client, lo, hi)
                elif (member := slot.members.get(client)) is not None:
                    _settled(member, lo, hi, count)

    async def run_positions(self) -> None:
        """Once a second: tell where the plain sockets of each slot are, and let go of slots without clients."""
        while True:
            await asyncio.sleep(POSITIONS_SECONDS)
            self._settle_acks(monotonic())
            try:
                await self._positions()
            except RedisUnavailableError as error:
                log.info("positions wait for Redis: %s", error)
            now = monotonic()
            while self._told and self._told[0][0] < now:
                for number in self._told.popleft()[1]:
                    self._ended.pop(number, None)
            for slot in list(self._hub.slots.values()):
                if not slot.members and not slot.queue and now - slot.idle_since > IDLE_SECONDS:
                    del self._hub.slots[slot.number]
                    self._sent.pop(slot.number, None)

    async def _positions(self) -> None:
        await each(range(self._hub.groups), self._positions_of)

    async def _positions_of(self, group: int) -> None:
        hub = self._hub
        async with self._telling[group]:
            # Who is gone counts for nothing below, so that Redis must know before where they ended.
            await self._flush_gone(group)
            upto, items = hub.settled(), self._untold(group)
            if not items:
                return
            args = [x for item in items for x in item]
            await self._flush_acks(group)
            await hub.link.eval(scripts.load("positions"), group, hub.boot, upto, *args)
        self._sent.update({number: (position, upto) for number, position in items})

    def _untold(self, group: int) -> list[tuple[int, bytes]]:
        """Slots of a group, with the position of their plain sockets, of which Redis does not know that."""
        found = []
        for slot in self._hub.slots.values():
            if slot.plain and slot.group == group:
                position = _position(slot)
                told, upto = self._sent.get(slot.number, (b"", 0))
                if told != position or slot.newest > upto:
                    found.append((slot.number, position))
        return found

    def restore(self) -> None:
        """Redis may have lost writes: compare what it records with what this server holds, as soon as it answers."""
        self._restore.set()

    async def run_restore(self) -> None:
        """Restore when asked to, for ever. Raises Fenced when this boot was reclaimed."""
        while True:
            await self._restore.wait()
            self._restore.clear()
            self._sent.clear()
            try:
                doubtful = set(self._hub.doubtful)
                await each(range(self._hub.groups), self._restore_group)
                self._hub.doubtful -= doubtful
            except RedisUnavailableError as error:
                log.warning("comparing what Redis records waits: %s", error)
                self._restore.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _restore_group(self, group: int) -> None:
        hub = self._hub
        if await hub.link.eval(scripts.load("boot"), group, hub.boot) is None:
            # Its clients were told to be gone: to record them again would be online without an event, or a ghost.
            raise Fenced
        restored = 0
        left = [s.number for s in hub.slots.values() if s.group == group and s.members]
        while left:
            behind: list[int] = []
            for batch in self._batches(left):
                done, *again = await hub.link.eval(
                    scripts.load("restore"), group, *hub.retention, hub.boot, *[x for s in batch for x in _record(s)]
                )
                if done < 0:
                    # Fenced meanwhile; the next beat says so.
                    return
                restored += done
                behind += [int(number) for number in again]
            if behind:
                await asyncio.sleep(CATCH_UP_SECONDS)
            left = behind
        known = await hub.link.command(group, "HKEYS", f"{hub.tag(group)}:bs:{hub.boot}")
        # Asked after the answer: what was recorded meanwhile is held by now, or being admitted.
        held = {s.number for s in hub.connected if s.state == OPEN} | hub.admitting
        for number in {int(n) for n in known} - held:
            self.gone(group, number, NOT_BEGUN)
        if restored:
            log.warning("Redis had lost writes: %d sockets were recorded again", restored)

    def _batches(self, numbers: list[int]) -> Iterator[list[Slot]]:
        """Slots together as long as they hold few sockets; looked at when their turn comes."""
        batch: list[Slot] = []
        size = 0
        for number in numbers:
            slot = self._hub.slots.get(number)
            if slot is None or not slot.members:
                continue
            sockets = sum(len(m.sockets) for m in slot.members.values())
            if batch and size + sockets > BATCH:
                yield batch
                batch, size = [], 0
            batch.append(slot)
            size += sockets
        if batch:
            yield batch


def _settled(member: Member, lo: int, hi: int, left: int) -> None:
    """Nothing up to hi is owed any more: who acks it again is not listened to, and need not be asked of Redis."""
    if not left and member.pending <= hi:
        member.pending = 0
    for socket in member.sockets:
        if lo <= socket.floor:
            # Not past the cursor: it goes back when Redis loses writes, and numbers begin again below.
            socket.floor = max(socket.floor, min(hi, member.slot.n))


def _record(slot: Slot) -> list[Any]:
    """A slot as the restoring script wants it. Memberships are those of live sockets: they are as of the cursor."""
    record: list[Any] = []
    count = 0
    for member in slot.members.values():
        chans = list(member.chans or ())
        for socket in member.sockets:
            count += 1
            mode = "e" if socket.envelope else "p"
            start = slot.id if socket.live else socket.at_id
            record += [socket.number, member.client, start, mode, socket.metadata, len(chans), *chans]
    return [slot.number, slot.id, count, *record]


def _position(slot: Slot) -> bytes:
    """Where the plain sockets of a slot are: the cursor, or before what the slowest has not been given."""
    behind = [s.at_id for s in slot.waiting if not s.envelope and s.at < slot.n]
    for socket in list(slot.stalled):
        if socket.unsent():
            behind.append(socket.safe)
    return min((slot.id, *behind), key=parse_id)
