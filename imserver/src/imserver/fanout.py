"""The hot path: entries of a slot's log in, frames on sockets out.
Slots take turns, a slot's entries keep their order, and a turn is bounded so that no channel holds up the others."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from . import entries
from .entries import Fields, number
from .socket import Socket
from .state import Fan, Slot
from .stats import Stats

__all__ = ["Fanout"]

log = logging.getLogger(__name__)

# Writes after which the loop gets a turn, so that what was written leaves and others are served: some 5 ms at 20 µs a
# write. A message of another slot needs a few turns: the read that asks for it, its answer, and its own dispatch.
SLICE = 250
# Entries of one slot at a visit: as many as leave together in one write a socket. A frame that is gathered costs a
# fraction of one that is written on its own.
VISIT = 32
VISIT_BYTES = 65536
VISIT_FRAMES = 2000
# Of frames that are written many times to one socket, so many bytes at once.
PIECE_BYTES = 65536
# Visits to slots without channel messages, of which there may be many, before one with some has its turn.
LIGHTS = 8


class Fanout:
    """Dispatches what readers put into slots' queues.

    `clock_ms` gives Redis's clock. `acked` is called for a receipt that became true: (slot, client, lo, hi).
    `gap` is called with a slot whose log jumped; the entry after the jump goes on.
    `incarnation` holds the incarnation of each group, as bytes with the dot that follows it in a POS.
    """

    def __init__(
        self,
        stats: Stats,
        incarnation: dict[int, bytes],
        clock_ms: Callable[[], float],
        acked: Callable[[Slot, bytes, int, int], None],
        gap: Callable[[Slot], None],
    ) -> None:
        self._stats = stats
        self._incarnation = incarnation
        self._clock_ms = clock_ms
        self._acked = acked
        self._gap = gap
        self._light: deque[Slot] = deque()
        self._heavy: deque[Slot] = deque()
        # Visits to light slots since the last one to a heavy slot.
        self._lights = 0
        self._work = asyncio.Event()
        # Frames by socket while a visit handles several entries, else None; and the id before those entries.
        self._out: dict[Socket, list[bytes]] | None = None
        self._before = b"0-0"

    @property
    def busy(self) -> bool:
        """Whether entries wait in any slot's queue."""
        return bool(self._light or self._heavy)

    def offer(self, slot: Slot, batch: list[tuple[bytes, list[bytes]]]) -> None:
        """Take entries that were read. Slots without channel messages in them go first."""
        slot.queue.extend(batch)
        slot.read = batch[-1][0]
        if not slot.queued:
            slot.queued = True
            heavy = any(f[0] == b"c" for _, f in batch)
            (self._heavy if heavy else self._light).append(slot)
            self._work.set()

    async def run(self) -> None:
        """Dispatch for ever, a slice a turn of the loop; each slot at most once a turn."""
        while True:
            await self._work.wait()
            budget, slots = SLICE, len(self._light) + len(self._heavy)
            for _ in range(slots):
                # One heavy slot after each eight light ones at the latest: neither starves the other. Counted over all
                # turns, for one heavy slot may be all that there is time for in one.
                light = self._light and (self._lights < LIGHTS or not self._heavy)
                self._lights = self._lights + 1 if light else 0
                slot = (self._light if light else self._heavy).popleft()
                budget -= 1 + self._visit(slot)
                if slot.queue:
                    self._heavy.append(slot)
                else:
                    slot.queued = False
                if budget <= 0:
                    break
            if not self.busy:
                self._work.clear()
            await asyncio.sleep(0)

    def _visit(self, slot: Slot) -> int:
        """Dispatch some entries of a slot. What several of them bring to one socket leaves in one write."""
        written, size = 0, 0
        several = min(VISIT, len(slot.queue))
        if several > 1:
            self._out, self._before = {}, slot.id
        for _ in range(several):
            if slot.waiting:
                self.promote_ready(slot)
            entry_id, fields = slot.queue.popleft()
            try:
                written += self._dispatch(slot, entry_id, fields)
            except (IndexError, ValueError):
                # Written by a foreign hand: it must not end every server that reads this slot.
                log.exception("slot %d: the entry %s is not readable", slot.number, entry_id.decode())
            size += len(fields[-1])
            if written > VISIT_FRAMES or size > VISIT_BYTES:
                break
        if several > 1:
            written = self._flush()
        if slot.waiting:
            self.promote_ready(slot)
        return written

    def _flush(self) -> int:
        """Write what a visit has gathered. Returns the number of writes."""
        out, self._out = self._out or {}, None
        for socket, parts in out.items():
            socket.send(parts[0] if len(parts) == 1 else b"".join(parts), self._before)
        return len(out)

    def _write_gathered(self, slot: Slot) -> None:
        """Before sockets are closed: what was gathered for them goes first."""
        if self._out is not None:
            self._flush()
            self._out, self._before = {}, slot.id

    def _put(self, socket: Socket, data: bytes, before: bytes) -> None:
        """Write a frame, or gather it in a visit with several entries."""
        if self._out is None:
            socket.send(data, before)
        else:
            self._out.setdefault(socket, []).append(data)

    def promote_ready(self, slot: Slot) -> None:
        """Sockets whose position is the slot's cursor join the live flow in this turn."""
        for socket in [s for s in slot.waiting if s.at == slot.n and s.caught_up and not s.paused]:
            socket.go_live()

    def _dispatch(self, slot: Slot, entry_id: bytes, f: Fields) -> int:
        n = number(entry_id)
        if n != slot.n + 1:
            # Trimmed before it was read, or numbered anew because Redis lost writes: never passed over in silence.
            self._write_gathered(slot)
            self._gap(slot)
        before, slot.id, slot.n = slot.id, entry_id, n
        kind = f[0]
        written = 0
        if kind == b"m":
            self._stats.received["message"] += 1
            written = self._message(slot, before, entry_id, n, f)
            self._stats.delivered["message"] += written
        elif kind == b"c":
            self._stats.received["channel"] += 1
            fan = slot.fans.get(f[7])
            if fan is not None:
                written = self._channel(slot, before, entry_id, f, fan)
                self._stats.delivered["channel"] += written
        elif kind == b"r":
            self._stats.received["receipt"] += 1
            member = slot.members.get(f[5])
            if member is not None:
                for socket in [s for s in member.sockets if s.live]:
                    written += self.receipts(slot, before, entry_id, f, socket)
                self._stats.delivered["receipt"] += written
        elif kind == b"j":
            slot.join(f[3], f[1], n)
        elif kind == b"l":
            for client in f[3].split(b"\n"):
                slot.leave(client, f[1])
        elif kind in (b"e", b"d"):
            self._write_gathered(slot)
            self.close_named(slot, f, n)
        if written:
            # Redis's clock is known here to some milliseconds; a sum that goes down would pass for a restart.
            waited_ms = self._clock_ms() - int(entry_id[: entry_id.index(b"-")])
            self._stats.delivery.observe(max(0.0, waited_ms / 1000))
        return written

    def _message(self, slot: Slot, before: bytes, entry_id: bytes, n: int, f: Fields) -> int:
        members = slot.members
        plain: bytes | None = None
        envelope: bytes | None = None
        written = 0
        for client in f[9].split(b"\n"):
            member = members.get(client)
            if member is None:
                continue
            for socket in member.sockets:
                if not socket.live:
                    continue
                if socket.envelope:
                    if envelope is None:
                        envelope = entries.message_frame(self._incarnation[slot.group] + entry_id, f)
                    self._put(socket, envelope, before)
                    if f[7] == b"1":
                        member.pending = n
                else:
                    if plain is None:
                        plain = entries.plain_message(f[5], f[11])
                    self._put(socket, plain, before)
                    if f[7] == b"1":
                        self._acked(slot, client, socket.floor, n)
                written += 1
        return written

    def _channel(self, slot: Slot, before: bytes, entry_id: bytes, f: Fields, fan: Fan) -> int:
        for sockets in (fan.plain, fan.envelope):
            if sockets:
                data = self.message(slot, entry_id, f, next(iter(sockets)))
                if self._out is None:
                    _write(sockets, data, before)
                else:
                    for socket in sockets:
                        self._out.setdefault(socket, []).append(data)
        return len(fan)

    def receipts(self, slot: Slot, before: bytes, entry_id: bytes, f: Fields, socket: Socket, done: int = 0) -> int:
        """Write the receipts of an entry to one socket, without the first `done`, and return how many.

        They are fewer than there are when the buffer of a plain one is full: each of them holds the payload.
        """
        count = f[3].count(b"\n") + 1
        if socket.envelope:
            incarnation = self._incarnation[slot.group]
            self._put(socket, entries.receipt_frames(incarnation + before, incarnation + entry_id, f), before)
            written = count
        elif count == 1:
            self._put(socket, entries.plain_receipt(f), before)
            written = 1
        else:
            self._write_gathered(slot)
            written = _repeat(socket, entries.plain_receipt(f), count - done, before)
        self._stats.receipts["delivered" if f[7] == b"d" else "offline"] += written
        return written

    def message(self, slot: Slot, entry_id: bytes, f: Fields, socket: Socket) -> bytes:
        """The frame of a message or channel message for one socket."""
        if socket.envelope:
            return entries.message_frame(self._incarnation[slot.group] + entry_id, f)
        return entries.plain_message(f[5], f[-1])

    def close_named(self, slot: Slot, f: Fields, n: int) -> None:
        """Close what an evict or disconnect entry names, unless it was opened after that entry."""
        if f[0] == b"d":
            member = slot.members.get(f[1])
            for socket in list(member.sockets) if member else ():
                if socket.joined < n:
                    socket.close(4500, f[3].decode())
            return
        member = slot.members.get(f[3])
        for socket in list(member.sockets) if member else ():
            if socket.sid == f[1]:
                socket.close(4502, "too many sockets for this client")


def _repeat(socket: Socket, frame: bytes, count: int, before: bytes) -> int:
    """Write the same frame so many times, or until the buffer is full. Returns how often."""
    done, most = 0, max(1, PIECE_BYTES // len(frame))
    while done < count and not socket.paused:
        some = min(most, count - done)
        socket.send(frame * some, before)
        done += some
    return done


def _write(sockets: Iterable[Socket], data: bytes, before: bytes) -> None:
    """Send the same to many: the innermost loop of all. What is not rare in `Socket.send` is done here."""
    size = len(data)
    for socket in sockets:
        if socket.held:
            socket.send(data, before)
        else:
            try:
                sent = socket.raw.send(data)
            except OSError:
                sent = 0
            if sent != size:
                socket.hold(data[sent:], before)
