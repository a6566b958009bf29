"""What the fake helper keeps instead of Redis: it answers the same scripts and commands, from memory, in one process.
Only the helper's side is here; servers, logs and replay are not. No I/O and no waiting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._backend.common import Arg, Call
from .core.payload import BYTES, JSON
from .core.slots import slot_of
from .core.topology import Limits, ServerEntry, Topology
from .errors import RedisUnavailableError

__all__ = ["Memory", "Sent"]

SLOTS = 128
EVENTS_KEPT = 100_000
# Where `send` and `send_chan` have the payload among their arguments.
PAYLOAD_AT = 7


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the fake helper accepted.

    Attributes:
        id: what the send returned.
        sender: the client id given as the sender.
        receivers: the receivers named; for a channel its members at that moment.
        chan: the channel, or None for `send_message`.
        message: as a receiver gets it: str, bytes, or the value that the JSON holds.
        receipt: whether receipts were asked for.
    """

    id: str
    sender: str
    receivers: tuple[str, ...]
    chan: str | None
    message: Any
    receipt: bool = False


class Memory:
    """Presence, channels, events and sent messages of a fake cluster with one group of keys."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.available = True
        self.sent: list[Sent] = []
        self._sockets: dict[str, list[str]] = {}
        self._chans: dict[str, set[str]] = {}
        self._markers: dict[str, float] = {}
        # Of sends in parts: who has the message.
        self._parts: dict[str, set[str]] = {}
        self._events: list[tuple[int, str, str, str]] = []
        self._last_event = 0
        self._cursors: dict[tuple[str, str], int] = {}
        self._owners: dict[tuple[str, str], tuple[str, float]] = {}
        self._members: dict[str, dict[str, float]] = {}
        entries = tuple(ServerEntry(name, f"ws://{name}.invalid/ws") for name in servers)
        table = tuple(slot % len(entries) for slot in range(SLOTS)) if entries else ()
        self.topology = Topology(epoch=1, slots=SLOTS, groups=1, servers=entries, table=table, limits=Limits())

    def answer(self, call: Call) -> Any:
        """The reply to one call, as Redis would give it."""
        if not self.available:
            raise RedisUnavailableError("the fake Redis was made unavailable") from ConnectionError("unavailable")
        name = call.script.name if call.script is not None else str(call.args[0]).lower()
        raw = PAYLOAD_AT if name in ("send", "send_chan") else None
        # Text comes as str, whatever form the caller had it in; only a payload stays as bytes.
        args = [a if at == raw else _text(a) for at, a in enumerate(call.args) if at or call.script]
        handler: Callable[..., Any] = getattr(self, f"_do_{name}")
        return handler(*args)

    # -- clients ----------------------------------------------------------------------------------------------------

    def connect(self, client_id: str, metadata: str) -> None:
        """Open one more socket of a client."""
        sockets = self._sockets.setdefault(client_id, [])
        sockets.append(metadata)
        if len(sockets) == 1:
            self._event("on", client_id, metadata)

    def _do_disconnect(self, _entries: str, _bytes: str, _ms: str, _slot: str, client: str, _reason: str) -> int:
        sockets = self._sockets.pop(client, [])
        self._chans.pop(client, None)
        if sockets:
            self._event("off", client, sockets[-1])
        return len(sockets)

    def _do_mint(self, *_args: str) -> int:
        return 1

    def _do_view(self, known: str) -> list[Any]:
        now = int(time.time() * 1000)
        leases: list[bytes] = []
        held = dict.fromkeys((entry.name for entry in self.topology.servers), 0)
        for client, sockets in self._sockets.items():
            owner = self.topology.server_of(client)
            if owner is not None:
                held[owner.name] += len(sockets)
        for entry in self.topology.servers:
            report = json.dumps({"url": entry.url, "state": "active", "connections": held[entry.name]})
            leases += (entry.name.encode(), f"boot\n1\n{now}\n{report}".encode())
        record = b"" if known == str(self.topology.epoch) else self.topology.to_json().encode()
        return [str(now).encode(), str(self.topology.epoch).encode(), record, leases]

    # -- sends ------------------------------------------------------------------------------------------------------

    def _accept(self, message_id: str, life: str) -> bool:
        now = time.monotonic()
        self._markers = {i: end for i, end in self._markers.items() if end > now}
        self._parts = {i: had for i, had in self._parts.items() if i in self._markers}
        if message_id in self._markers:
            return False
        self._markers[message_id] = now + int(life) / 1000
        return True

    def _do_send(
        self,
        _entries: str,
        _bytes: str,
        _ms: str,
        message_id: str,
        life: str,
        sender: str,
        kind: str,
        payload: bytes,
        receipt: str,
        _home: str,
        *slots_and_receivers: str,
    ) -> int:
        if self._accept(message_id, life):
            self._parts.pop(message_id, None)
            if receipt == "2":
                self._parts[message_id] = set()
        elif message_id not in self._parts:
            return 0
        receivers = tuple(r for names in slots_and_receivers[1::2] for r in names.split("\n"))
        had = self._parts.get(message_id)
        if had is not None:
            # One of several calls for one send: they are one message to all of their receivers.
            receivers = tuple(r for r in receivers if r not in had)
            had.update(receivers)
            for at, earlier in enumerate(self.sent):
                if earlier.id == message_id:
                    self.sent[at] = replace(earlier, receivers=earlier.receivers + receivers)
                    return 1
        self.sent.append(Sent(message_id, sender, receivers, None, _decoded(kind, payload), receipt != "0"))
        return 1

    def _do_send_chan(
        self,
        _entries: str,
        _bytes: str,
        _ms: str,
        message_id: str,
        life: str,
        sender: str,
        kind: str,
        payload: bytes,
        chan: str,
    ) -> int:
        if not self._accept(message_id, life):
            return 0
        members = tuple(client for client, chans in self._chans.items() if chan in chans)
        self.sent.append(Sent(message_id, sender, members, chan, _decoded(kind, payload)))
        return len(members)

    # -- channels ---------------------------------------------------------------------------------------------------

    def _do_join(self, _entries: str, _bytes: str, _ms: str, _slot: str, client: str, chan: str) -> int:
        if client not in self._sockets:
            return 0
        self._chans.setdefault(client, set()).add(chan)
        return 1

    def _do_leave(self, _entries: str, _bytes: str, _ms: str, _slot: str, client: str, *chans: str) -> int:
        mine = self._chans.get(client, set())
        left = mine & set(chans)
        mine -= left
        return len(left)

    def _do_clear(self, _entries: str, _bytes: str, _ms: str, chan: str, *slots_and_clients: str) -> int:
        clients = [c for names in slots_and_clients[1::2] for c in names.split("\n")]
        return sum(self._do_leave("", "", "", "", client, chan) for client in clients)

    # -- commands ---------------------------------------------------------------------------------------------------

    def _do_ping(self) -> bytes:
        return b"PONG"

    def _do_info(self, _section: str) -> bytes:
        return b"maxmemory_policy:noeviction\r\n"

    def _do_smismember(self, _key: str, *clients: str) -> list[int]:
        return [int(client in self._sockets) for client in clients]

    def _do_scard(self, _key: str) -> int:
        return len(self._sockets)

    def _do_sscan(self, key: str, *_cursor_and_count: str) -> list[Any]:
        _, _, rest = key.partition("}:")
        kind, _, chan = rest.partition(":")
        found = self._sockets if kind == "online" else (c for c, chans in self._chans.items() if chan in chans)
        return [b"0", [client.encode() for client in found]]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for chans in self._chans.values():
            for chan in chans:
                counts[chan] = counts.get(chan, 0) + 1
        return counts

    def _do_hscan(self, _key: str, *_cursor_and_count: str) -> list[Any]:
        return [b"0", [part.encode() for chan, n in self._counts().items() for part in (chan, str(n))]]

    def _do_hget(self, _key: str, chan: str) -> bytes | None:
        count = self._counts().get(chan)
        return None if count is None else str(count).encode()

    def _do_hkeys(self, key: str) -> list[bytes]:
        client = key.partition("}:ch:")[2]
        return [chan.encode() for chan in self._chans.get(client, ())]

    # -- events -----------------------------------------------------------------------------------------------------

    def _event(self, kind: str, client: str, metadata: str) -> None:
        self._last_event += 1
        self._events.append((self._last_event, kind, client, metadata))
        del self._events[:-EVENTS_KEPT]

    def _do_xrevrange(self, _key: str, *_range_and_count: str) -> list[Any]:
        return [[_event_id(self._last_event), []]] if self._last_event else []

    def _do_xread(self, *args: str) -> list[Any] | None:
        key, after = args[-2], int(args[-1].partition("-")[0])
        entries = []
        for number, kind, client, metadata in self._events:
            if number > after:
                fields = ("e", kind, "c", client, "s", str(slot_of(client, SLOTS)), "m", metadata)
                entries.append([_event_id(number), [field.encode() for field in fields]])
        return [[key.encode(), entries]] if entries else None

    def _do_events_members(self, group: str, member: str, life: str) -> list[bytes]:
        now = time.monotonic()
        members = self._members.setdefault(group, {})
        members[member] = now + int(life) / 1000
        for name in [name for name, end in members.items() if end <= now]:
            del members[name]
        return [name.encode() for name in sorted(members)]

    def _do_events_lease(self, group: str, member: str, lease: str, *wishes: str) -> list[Any]:
        now = time.monotonic()
        held: list[Any] = []
        for partition, wish, position in zip(wishes[::3], wishes[1::3], wishes[2::3], strict=True):
            key = (group, partition)
            owner, till = self._owners.get(key, ("", 0.0))
            if position and (owner == member or key not in self._cursors):
                self._cursors[key] = int(position.partition("-")[0])
            cursor = self._cursors.setdefault(key, self._last_event)
            if wish == "-":
                if owner == member:
                    del self._owners[key]
            elif owner == member or till < now:
                self._owners[key] = (member, now + int(lease) / 1000)
                held += (int(partition), _event_id(cursor))
        return held

    def _do_events_done(self, group: str, member: str, lease: str, partition: str, event_id: str) -> int:
        key = (group, partition)
        if self._owners.get(key, ("", 0.0))[0] != member:
            return 0
        self._cursors[key] = int(event_id.partition("-")[0])
        self._owners[key] = (member, time.monotonic() + int(lease) / 1000)
        return 1


def _text(value: Arg) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _event_id(number: int) -> bytes:
    return b"%d-0" % number


def _decoded(kind: str, payload: bytes) -> Any:
    if kind == BYTES:
        return payload
    return json.loads(payload) if kind == JSON else payload.decode()
