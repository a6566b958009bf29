"""What a server holds in memory: slots, the clients in them, the members of channels.
Plain data with the rules that keep its indexes true; no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from imhelper.core.position import StreamId

if TYPE_CHECKING:
    from .socket import Socket

__all__ = ["Fan", "Intervals", "Member", "Slot"]

# Of a channel: (from, to] in log numbers; `to` is None while the client is a member.
Intervals = dict[bytes, list[tuple[int, int | None]]]


class Fan:
    """The live sockets of one channel in one slot, by wire mode."""

    __slots__ = ("envelope", "plain")

    def __init__(self) -> None:
        self.plain: set[Socket] = set()
        self.envelope: set[Socket] = set()

    def __len__(self) -> int:
        return len(self.plain) + len(self.envelope)


class Member:
    """A client with sockets on this server. `chans` is true while `live` counts at least one live socket.

    `pending` is the number of the last entry known to await a receipt by ack, 0 when there is none.
    """

    __slots__ = ("chans", "client", "live", "pending", "slot", "sockets")

    def __init__(self, client: bytes, slot: Slot) -> None:
        self.client = client
        self.slot = slot
        self.sockets: list[Socket] = []
        self.live = 0
        self.chans: dict[bytes, int] | None = None
        self.pending = 0


class Slot:
    """A slot that this server reads: where it is in the log, and who wants what of it.

    `id` and `n` name the last entry dispatched, `read` the last one read; between the two lies `queue`.
    `waiting` holds the sockets that are not live: replaying, or opened ahead of the cursor. `newest` is the highest
    number of a plain socket that has entered.
    """

    __slots__ = (
        "fans",
        "group",
        "id",
        "idle_since",
        "key",
        "members",
        "n",
        "newest",
        "number",
        "plain",
        "queue",
        "queued",
        "read",
        "stalled",
        "waiting",
    )

    def __init__(self, number: int, group: int, key: bytes, start: StreamId) -> None:
        self.number = number
        self.group = group
        self.key = key
        self.id = bytes(start)
        self.n = start.n
        self.read = self.id
        self.members: dict[bytes, Member] = {}
        self.fans: dict[bytes, Fan] = {}
        self.queue: deque[tuple[bytes, list[bytes]]] = deque()
        self.queued = False
        self.waiting: set[Socket] = set()
        self.stalled: set[Socket] = set()
        self.plain = 0
        self.newest = 0
        self.idle_since = 0.0

    def enter(self, socket: Socket, client: bytes) -> Member:
        """Index a socket under its client, not live yet."""
        member = self.members.get(client)
        if member is None:
            member = self.members[client] = Member(client, self)
        member.sockets.append(socket)
        self.waiting.add(socket)
        if not socket.envelope:
            self.plain += 1
            self.newest = max(self.newest, socket.number)
        return member

    def promote(self, socket: Socket, view: Intervals) -> None:
        """Make a socket live. The first one of a member brings the memberships as its own position knows them."""
        member = socket.member
        self.waiting.discard(socket)
        socket.live = True
        member.live += 1
        if member.live == 1:
            # A replay may have read beyond the cursor; what comes after it, the live flow brings. An end right behind
            # the cursor may have no entry: that of one that went offline.
            n = self.n
            chans = {c: j for c, spans in view.items() for j, end in spans if j <= n and (end is None or end > n + 1)}
            member.chans = chans or None
        for chan in member.chans or ():
            self._add(chan, socket)

    def mute(self, socket: Socket) -> None:
        """Take a socket out of the flow, live or waiting. It stays a socket of its client."""
        member = socket.member
        if socket.live:
            socket.live = False
            member.live -= 1
            for chan in member.chans or ():
                self._drop(chan, socket)
            if member.live == 0:
                member.chans = None
        self.waiting.discard(socket)

    def exit(self, socket: Socket) -> None:
        """Take a socket out of every index."""
        member = socket.member
        self.mute(socket)
        self.stalled.discard(socket)
        member.sockets.remove(socket)
        if not socket.envelope:
            self.plain -= 1
        if not member.sockets:
            del self.members[member.client]

    def join(self, client: bytes, chan: bytes, n: int) -> None:
        """A live member joined a channel, as the log says. For a member that is not live its replay will say so."""
        member = self.members.get(client)
        if member is None or not member.live:
            return
        if member.chans is None:
            member.chans = {}
        if chan not in member.chans:
            member.chans[chan] = n
            for socket in member.sockets:
                if socket.live:
                    self._add(chan, socket)

    def leave(self, client: bytes, chan: bytes) -> None:
        """A live member left a channel, as the log says."""
        member = self.members.get(client)
        if member is None or not member.chans or member.chans.pop(chan, None) is None:
            return
        for socket in member.sockets:
            if socket.live:
                self._drop(chan, socket)
        if not member.chans:
            member.chans = None

    def _add(self, chan: bytes, socket: Socket) -> None:
        fan = self.fans.get(chan)
        if fan is None:
            fan = self.fans[chan] = Fan()
        (fan.envelope if socket.envelope else fan.plain).add(socket)

    def _drop(self, chan: bytes, socket: Socket) -> None:
        fan = self.fans[chan]
        (fan.envelope if socket.envelope else fan.plain).discard(socket)
        if not fan.plain and not fan.envelope:
            del self.fans[chan]
