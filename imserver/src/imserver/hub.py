"""The middle of a server: admits sockets, indexes them, lets them go; wires fan-out, replay and presence.
One event loop, no locks: what has no `await` in it happens at once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from time import monotonic
from typing import Any

from imhelper._backend.aio import Link
from imhelper.core import keys
from imhelper.core.position import Position, StreamId, parse_id, parse_position
from imhelper.core.slots import group_of
from imhelper.core.topology import Topology
from imhelper.errors import RedisUnavailableError

from . import entries
from .entries import Fields
from .fanout import Fanout
from .frames import PING_FRAME
from .gate import Gate
from .handshake import UNAUTHORIZED, Refusal, Wanted
from .heard import Heard
from .inquiry import Inquiry
from .losses import Losses
from .presence import NOT_BEGUN, NOWHERE, Presence
from .recording import record
from .replay import Replayer
from .room import Room, open_files
from .settings import Settings
from .socket import ADMITTING, OPEN, READING, Socket
from .state import Intervals, Slot
from .stats import Stats
from .wheel import Wheel

__all__ = ["PATIENCE_SECONDS", "Hub"]

log = logging.getLogger(__name__)

# Close codes that are counted by themselves: those that servers send, and what clients use without choosing.
CLOSE_CODES = frozenset((1000, 1001, 1002, 1005, 1006, 1007, 1009, 1012, 1013, 4000, 4001, 4002, 4500, 4501, 4502))
# Handshakes under way at once; more get 503 and come again.
ADMIT_MAX = 1024
# Handshakes a second that a server takes (each costs some 0.3 ms), how many at once, how many more wait in line.
GATE_RATE, GATE_BURST, GATE_ROOM = 2000.0, 200.0, 4000
GATE_SECONDS = 0.01
# How long a request may take to arrive, and a close to be answered.
PATIENCE_SECONDS = 10.0
BUSY = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many handshakes at once, come again", "busy", 1)
FULL = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "full", "this server holds as many connections as it may", "full", 5)
DRAINING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "draining", "this server is going away", "draining", 1)
NOT_READY = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Redis can't be reached now", "unavailable", 2)


class Hub:
    """Everything that sockets share. `boot` names this run of the process; Redis knows its sockets by it."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self.settings = settings
        self.link = link
        self.stats = Stats()
        self.boot = secrets.token_hex(8)
        self.boot_raw = self.boot.encode()
        # At least one message of the largest size always fits, or each such message would end a socket.
        self.room: Room[Socket] = Room(settings.max_connections, open_files(settings.max_connections))
        self.heard = Heard()
        self.losses = Losses(settings.drain_rate)
        self.buffer_bytes = max(settings.buffer_bytes, settings.max_payload_bytes + 4096)
        self.topology: Topology | None = None
        # The epoch that Redis held at the last beat; empty when it holds no topology (any more).
        self.epoch_in_redis = ""
        self.slots_count = settings.slots or 128
        self.groups = 1
        self.slots: dict[int, Slot] = {}
        self.incarnation: dict[int, bytes] = {}
        self.connected: set[Socket] = set()
        self.pings: Wheel[Socket] = Wheel(max(4, min(100, int(settings.ping_seconds * 4))))
        self.patience: Wheel[Socket] = Wheel(int(PATIENCE_SECONDS))
        self.open_count = 0
        self.ready = False
        self.redis_up = False
        self.draining = False
        # Draining because the process ends, not because the table says so.
        self.ending = False
        # Set whenever a new topology was learnt.
        self.learnt = asyncio.Event()
        self.clock_offset_ms = 0.0
        self.presence = Presence(self)
        self.inquiry = Inquiry(self)
        self.fanout = Fanout(self.stats, self.incarnation, self.clock_ms, self.presence.ack, self._slot_gap)
        largest = settings.max_payload_bytes
        self.replayer = Replayer(self.fanout, self._scan, self.presence.ack, self._gap, largest)
        # Set by the reader that follows the group of a slot.
        self.wake_reader: Callable[[Slot], None] = lambda slot: None
        self.writes_lost: Callable[[int], None] = lambda group: None
        # Set by the lease keeper: makes it beat at once.
        self.poke: Callable[[], None] = lambda: None
        self._newest = 0
        self._handshakes = 0
        self._gate: Gate[tuple[Socket, Wanted, bytes | None]] = Gate(GATE_RATE, GATE_BURST, GATE_ROOM)
        # Set while handshakes wait in line.
        self._lined = asyncio.Event()
        # The numbers of sockets that Redis may record before they are open here.
        self.admitting: set[int] = set()
        # Those of handshakes that Redis may carry out yet, though nobody waits for them any more.
        self.doubtful: set[int] = set()
        self._jobs: set[asyncio.Task[None]] = set()

    # What others ask.

    @property
    def retention(self) -> tuple[int, int, int]:
        """Entries, bytes and milliseconds that a slot's log keeps, as scripts want them."""
        s = self.settings
        return s.retain_entries, s.retain_bytes, int(s.retain_seconds * 1000)

    def tag(self, group: int) -> str:
        """The hash tag of a group."""
        return keys.group_tag(self.settings.prefix, group)

    def clock_ms(self) -> float:
        """Redis's clock, in ms, as last learnt from it."""
        return monotonic() * 1000 + self.clock_offset_ms

    def members(self) -> int:
        """How many clients have a socket here."""
        return sum(len(s.members) for s in self.slots.values())

    def settled(self) -> int:
        """The number up to which each socket is indexed here or gone: none that Redis records is under way."""
        return min(self.admitting | self.doubtful, default=self._newest + 1) - 1

    # Admission.

    def admit(self, socket: Socket, wanted: Wanted, answer: bytes | None) -> None:
        """Take a handshake: consume its token, record the socket, then answer.

        Without an answer it is a request for no WebSocket: its token is looked up, and stays good.
        """
        refusal = self.refusal()
        if refusal is None:
            passed = self._gate.enter((socket, wanted, answer), monotonic())
            if passed:
                self._start(socket, wanted, answer)
            elif passed is None:
                self._lined.set()
            else:
                refusal = BUSY
        if refusal is not None:
            socket.refuse(refusal)

    async def run_gate(self) -> None:
        """Let the handshakes that wait in line pass as their time comes, for ever."""
        while True:
            # A quiet process that woke a hundred times a second for nobody would pay 0.5 % of a CPU for it.
            await self._lined.wait()
            await asyncio.sleep(GATE_SECONDS)
            for socket, wanted, answer in self._gate.due(monotonic()):
                if socket.state == ADMITTING:
                    refusal = self.refusal()
                    if refusal is None:
                        self._start(socket, wanted, answer)
                    else:
                        socket.refuse(refusal)
            if not len(self._gate):
                self._lined.clear()

    def _start(self, socket: Socket, wanted: Wanted, answer: bytes | None) -> None:
        self._handshakes += 1
        self.spawn(self._look_up(socket, wanted) if answer is None else self._admit(socket, wanted, answer))

    def refusal(self) -> Refusal | None:
        """Why no handshake can be taken now, or None."""
        if self.draining:
            return DRAINING
        if not self.ready or not self.redis_up:
            return NOT_READY
        if self.open_count + self._handshakes >= self.room.connections:
            return FULL
        return BUSY if self._handshakes >= ADMIT_MAX else None

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a short job of its own; its failure is logged."""
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a job of the server failed", exc_info=task.exception())

    async def _look_up(self, socket: Socket, wanted: Wanted) -> None:
        group = group_of(wanted.slot, self.groups)
        try:
            known = await self.link.command(group, "EXISTS", keys.token(self.tag(group), wanted.token))
        except RedisUnavailableError:
            _refuse(socket, NOT_READY)
        else:
            if not known:
                _refuse(socket, UNAUTHORIZED)
            elif socket.state == ADMITTING:
                socket.refuse_request()
        finally:
            self._handshakes -= 1

    async def _admit(self, socket: Socket, wanted: Wanted, answer: bytes) -> None:
        self._newest += 1
        number = socket.number = self._newest
        self.admitting.add(number)
        try:
            await self._record(socket, wanted, answer)
        finally:
            self.admitting.discard(number)
            self._handshakes -= 1

    async def _record(self, socket: Socket, wanted: Wanted, answer: bytes) -> None:
        number = socket.number
        group = group_of(wanted.slot, self.groups)
        mode = "e" if socket.envelope else "p"
        since_incarnation, since_id = _since(wanted.since)
        try:
            reply = await record(
                *(self.link, self.clock_ms, group),
                *(self.boot, number, wanted.token, wanted.slot, mode, since_incarnation, since_id),
                *(self.settings.max_sockets_per_client, *self.retention, self.incarnation[group].rstrip(b".")),
            )
        except RedisUnavailableError as error:
            log.warning("a handshake found Redis unavailable: %s", error)
            self.presence.gone(group, number, NOT_BEGUN)
            self.doubtful.add(number)
            # The script may have run, even after the socket's end was told: look again once Redis answers.
            self.presence.restore()
            _refuse(socket, NOT_READY)
            return
        if reply[0] == b"stale":
            # Redis lost writes and the reader has not seen it yet: nobody may join in between.
            self.writes_lost(group)
        if reply[0] != b"ok":
            _refuse(socket, UNAUTHORIZED if reply[0] == b"unknown" else NOT_READY)
            return
        _, client, socket.metadata, last, start, recovered, chans, past, pending, others = reply
        if others:
            start = await self.inquiry.oldest(start, others, wanted.slot, group, entries.number(last))
        if socket.state != ADMITTING:
            self.presence.gone(group, number, start)
            return
        slot = self._slot(wanted.slot, group, parse_id(last))
        socket.at_id = start
        socket.at = entries.number(start)
        # A socket that resumes speaks for what its earlier one got; a fresh one only for what it gets itself.
        socket.floor = 0 if recovered else socket.at
        socket.joined = entries.number(last)
        socket.view = _view(chans, past)
        socket.member = slot.enter(socket, client)
        self.open_count += 1
        if pending:
            socket.member.pending = max(socket.member.pending, socket.joined)
        if wanted.since is not None:
            self.stats.resumes["recovered" if recovered else "lost"] += 1
            if recovered:
                # A position that a client comes back with says that all before it is safe with it.
                self.presence.ack(slot, client, 0, socket.at)
        elif socket.at < socket.joined:
            self.stats.resumes["plain"] += 1
        if socket.envelope:
            pos = self.incarnation[group] + start
            ping = self.settings.ping_seconds
            answer += entries.hello(client, self.settings.server_name, pos, bool(recovered), ping)
        self.stats.handshakes["ok"] += 1
        socket.opened(answer)
        if socket.state == OPEN and socket.behind(slot.n):
            self.replayer.want(slot)
        elif socket.state == OPEN and socket.at == slot.n:
            socket.go_live()

    def _slot(self, number: int, group: int, last: StreamId) -> Slot:
        slot = self.slots.get(number)
        if slot is None:
            key = keys.log(self.tag(group), number).encode()
            slot = self.slots[number] = Slot(number, group, key, last)
            self.wake_reader(slot)
        return slot

    # While sockets are open.

    def acked_by_client(self, socket: Socket, pos: Position) -> None:
        """A client says that all up to a position is safe; never more than was written to its socket."""
        slot, member = socket.member.slot, socket.member
        if b"%d." % pos.incarnation != self.incarnation[slot.group]:
            return
        if pos.id.n > socket.written:
            # It may know it from the server that it has just left.
            self.presence.acked_ahead(socket, pos.id.n)
        if member.pending:
            self.presence.ack(slot, member.client, socket.floor, min(pos.id.n, socket.written))

    def replay(self, socket: Socket) -> None:
        """A waiting socket can take more."""
        self.replayer.want(socket.member.slot)

    def too_slow(self, socket: Socket) -> None:
        """A live socket's buffer is over its bound. Closed after the current fan-out, which iterates over it."""
        asyncio.get_running_loop().call_soon(self._close_slow, socket)

    def _close_slow(self, socket: Socket) -> None:
        if socket.state == OPEN and socket.paused:
            self.stats.slow_consumers += 1
            socket.close(4001, "too slow")

    def _gap(self, socket: Socket) -> None:
        self.stats.gaps += 1
        socket.close(4002, "history was lost: reload")

    def _slot_gap(self, slot: Slot) -> None:
        log.warning("slot %d: the log jumped after %s", slot.number, slot.id.decode())
        self.stats.gaps += 1
        for member in list(slot.members.values()):
            for socket in [s for s in member.sockets if s.live]:
                socket.close(4002, "history was lost: reload")
        # Those that wait for the cursor, which has just passed them by.
        self.replayer.want(slot)
        self.writes_lost(slot.group)

    async def _scan(self, slot: Slot, after: bytes, upto: bytes, count: int) -> list[tuple[bytes, Fields]]:
        reply = await self.link.command(slot.group, "XRANGE", slot.key, b"(" + after, upto, "COUNT", count)
        return [(entry[0], entry[1]) for entry in reply]

    # When sockets go.

    def left(self, socket: Socket, code: int) -> None:
        """An open socket leaves every index; Redis is told soon, in a batch."""
        slot = socket.member.slot
        pos = NOWHERE
        if not socket.envelope and code != 4002:
            if code != 1006:
                # The buffer of a lost connection is gone already: what the last look at it found has to do.
                socket.unsent()
            pos = socket.place
        slot.exit(socket)
        self.open_count -= 1
        self.stats.disconnects[str(code) if code in CLOSE_CODES else "other"] += 1
        self.presence.gone(slot.group, socket.number, pos)
        if not slot.members:
            slot.idle_since = monotonic()

    def close_all(self, code: int, reason: str) -> None:
        """Close every open socket now."""
        for socket in [s for s in self.connected if s.state == OPEN]:
            socket.close(code, reason)

    def look_at_ping(self, socket: Socket) -> None:
        """A socket's turn on the wheel: dead if it gave no sign of life for a round, else it is pinged."""
        if not socket.alive:
            socket.close(4000, "ping timeout")
        else:
            socket.alive = False
            socket.send(PING_FRAME, socket.reached)

    def lose_patience(self, socket: Socket) -> None:
        """A handshake or a close that took too long."""
        if socket.state == READING:
            self.stats.handshakes["timeout"] += 1
        socket.transport.abort()


def _refuse(socket: Socket, refusal: Refusal) -> None:
    if socket.state == ADMITTING:
        socket.refuse(refusal)


def _since(since: str | None) -> tuple[str, str]:
    """Incarnation and id of what a client sent as `since`; what can't be read counts as a foreign position."""
    if since is None:
        return "", ""
    pos = parse_position(since)
    return ("-", "0-0") if pos is None else (str(pos.incarnation), bytes(pos.id).decode())


def _view(chans: list[bytes], past: list[bytes]) -> Intervals | None:
    """The memberships of a client, now and in the window, as the connect script gives them."""
    if not chans and not past:
        return None
    view: Intervals = {}
    for span in past:
        joined, left, chan = span.split(b" ", 2)
        view.setdefault(chan, []).append((int(joined), int(left)))
    for chan, joined in zip(chans[::2], chans[1::2], strict=True):
        view.setdefault(chan, []).append((int(joined), None))
    return view
