"""Replays: what a socket missed, read from the log of its slot again, chunk by chunk as it drains.
All sockets of a slot that replay share scans; few scans run at a time, so a storm costs slots, not clients."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic

from imhelper.errors import RedisUnavailableError

from .entries import Fields, number
from .fanout import Fanout
from .gate import Pace
from .portion import ENTRY_BYTES, Portion
from .socket import OPEN, Socket
from .state import Slot

__all__ = ["Replayer", "is_member_at"]

log = logging.getLogger(__name__)

Scan = Callable[[Slot, bytes, bytes, int], Awaitable[list[tuple[bytes, Fields]]]]
CHUNK_BYTES = 1048576
RETRY_SECONDS = 0.5
# Scans a second and how many at once after a pause. While one waits for its turn, more sockets come to share it.
SCAN_RATE, SCAN_BURST = 100.0, 128.0


def is_member_at(socket: Socket, chan: bytes, n: int) -> bool:
    """Whether the socket's client was a member of the channel when entry n was appended."""
    spans = (socket.view or {}).get(chan, ())
    return any(start < n and (end is None or n < end) for start, end in spans)


class Replayer:
    """Feeds waiting sockets up to their slot's cursor, where they join the live flow, but not before the entry that was
    the last when they connected: their memberships are as of that one, and a replay alone looks back from there.

    `scan(slot, after, upto, count)` reads entries of the log; `gap` is called with a socket whose history is not
    there any more; `acked` as the fan-out's. `largest` is the most bytes that a message has.
    """

    def __init__(
        self,
        fanout: Fanout,
        scan: Scan,
        acked: Callable[[Slot, bytes, int, int], None],
        gap: Callable[[Socket], None],
        largest: int,
        workers: int = 4,
    ) -> None:
        self._fanout = fanout
        self._scan = scan
        self._acked = acked
        self._gap = gap
        self._largest = largest + ENTRY_BYTES
        self._wanted: dict[Slot, None] = {}
        self._running: set[Slot] = set()
        self._signal = asyncio.Semaphore(0)
        self._pace = Pace(SCAN_RATE, SCAN_BURST)
        # How many receipts of the entry after `at` a plain socket was given before its buffer was full.
        self._midway: dict[Socket, int] = {}
        self.workers = workers

    def want(self, slot: Slot) -> None:
        """Ask for the waiting sockets of a slot to be fed. Asking twice costs nothing."""
        if slot not in self._wanted:
            self._wanted[slot] = None
            self._signal.release()

    async def work(self) -> None:
        """One worker: takes slots one after the other, for ever."""
        while True:
            await self._signal.acquire()
            slot = next(iter(self._wanted))
            del self._wanted[slot]
            if slot in self._running:
                # Its worker looks again before it ends.
                continue
            self._running.add(slot)
            try:
                await self._feed(slot)
            except RedisUnavailableError as error:
                log.warning("replay of slot %d waits: %s", slot.number, error)
                await asyncio.sleep(RETRY_SECONDS)
                self.want(slot)
            finally:
                self._running.discard(slot)

    def _ready(self, slot: Slot) -> list[Socket]:
        self._fanout.promote_ready(slot)
        return [s for s in slot.waiting if s.behind(slot.n) and not s.paused and s.state == OPEN]

    async def _feed(self, slot: Slot) -> None:
        portion = Portion(CHUNK_BYTES, self._largest)
        while self._ready(slot):
            await asyncio.sleep(self._pace.turn(monotonic()))
            ready = self._ready(slot)
            if not ready:
                break
            lowest = min(ready, key=lambda s: s.at)
            # A socket that knew the log's end before this server's reader did is fed past the cursor, and waits for it.
            upto = b"+" if any(s.joined > slot.n for s in ready) else slot.id
            _, count = portion.share(1)
            chunk = await self._scan(slot, lowest.at_id, upto, count)
            size = sum(len(f[-1]) + ENTRY_BYTES for _, f in chunk)
            portion.brought(len(chunk), size, len(chunk) == count, 1)
            ready = [s for s in ready if s in slot.waiting]
            if not chunk:
                # The log ends before where it must end: it was trimmed to nothing, or lost.
                for socket in ready:
                    self._gap(socket)
                continue
            self._apply(slot, ready, chunk)

    def _apply(self, slot: Slot, ready: list[Socket], chunk: list[tuple[bytes, Fields]]) -> None:
        first = number(chunk[0][0])
        by_client: dict[bytes, list[Socket]] = defaultdict(list)
        by_chan: dict[bytes, list[Socket]] = defaultdict(list)
        feeding: list[Socket] = []
        for socket in ready:
            if socket.at < first - 1:
                self._gap(socket)
                continue
            feeding.append(socket)
            by_client[socket.member.client].append(socket)
            for chan in socket.view or ():
                by_chan[chan].append(socket)
        expected = first
        for entry_id, f in chunk:
            n = number(entry_id)
            if n != expected:
                for socket in [s for s in feeding if s.at < n - 1]:
                    feeding.remove(socket)
                    self._gap(socket)
            expected = n + 1
            try:
                self._entry(slot, entry_id, n, f, by_client, by_chan)
            except (IndexError, ValueError):
                log.exception("slot %d: the entry %s is not readable", slot.number, entry_id.decode())
        last_id, last = chunk[-1][0], expected - 1
        for socket in feeding:
            if not socket.paused and socket.at < last:
                socket.at, socket.at_id = last, last_id
        self._fanout.promote_ready(slot)

    def _entry(
        self,
        slot: Slot,
        entry_id: bytes,
        n: int,
        f: Fields,
        by_client: dict[bytes, list[Socket]],
        by_chan: dict[bytes, list[Socket]],
    ) -> None:
        kind = f[0]
        if kind == b"m":
            for client in f[9].split(b"\n"):
                for socket in by_client.get(client, ()):
                    if self._write(slot, socket, entry_id, n, f) and f[7] == b"1":
                        if socket.envelope:
                            socket.member.pending = max(socket.member.pending, n)
                        else:
                            self._acked(slot, client, socket.floor, n)
        elif kind == b"c":
            for socket in by_chan.get(f[7], ()):
                if is_member_at(socket, f[7], n):
                    self._write(slot, socket, entry_id, n, f)
        elif kind == b"r":
            for socket in by_client.get(f[5], ()):
                self._write(slot, socket, entry_id, n, f)
        elif kind in (b"j", b"l"):
            for client in f[3].split(b"\n"):
                for socket in by_client.get(client, ()):
                    if n > socket.joined and n > socket.at:
                        _change(socket, f[1], n, kind == b"j")
                        if kind == b"j" and socket not in by_chan[f[1]]:
                            by_chan[f[1]].append(socket)
        elif kind in (b"e", b"d"):
            self._fanout.close_named(slot, f, n)

    def _write(self, slot: Slot, socket: Socket, entry_id: bytes, n: int, f: Fields) -> bool:
        if n <= socket.at or socket.paused or socket.state != OPEN:
            return False
        if f[0] == b"r":
            return self._receipts(slot, socket, entry_id, n, f)
        socket.send(self._fanout.message(slot, entry_id, f, socket), socket.at_id)
        socket.at, socket.at_id = n, entry_id
        return True

    def _receipts(self, slot: Slot, socket: Socket, entry_id: bytes, n: int, f: Fields) -> bool:
        done = self._midway.pop(socket, 0)
        done += self._fanout.receipts(slot, socket.at_id, entry_id, f, socket, done)
        if done <= f[3].count(b"\n"):
            self._midway = {s: k for s, k in self._midway.items() if s.state == OPEN} | {socket: done}
            return False
        socket.at, socket.at_id = n, entry_id
        return True


def _change(socket: Socket, chan: bytes, n: int, joined: bool) -> None:
    if socket.view is None:
        socket.view = {}
    spans = socket.view.setdefault(chan, [])
    # A chunk may be read again after a pause: a join must not open a second span, nor a leave end a later one.
    if joined:
        if all(start != n for start, _ in spans):
            spans.append((n, None))
    elif spans and spans[-1][1] is None and spans[-1][0] < n:
        spans[-1] = (spans[-1][0], n)
