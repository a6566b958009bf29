"""Sending: one script for each group of keys that a message touches, all at once, and an error that can be repeated.
Generated from _async/sending.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .._backend._work_blocking import invoke
from .._backend.common import Arg, Call
from .._models import SendEvent
from ..core.payload import Payload, check_size, encode_message, make_key, message_id
from ..core.scripts import load
from ..core.slots import group_of, slot_of
from ..core.topology import Topology
from ..errors import RedisUnavailableError, SettingError
from .view import View

__all__ = ["Sender", "retention"]

KEY_LIFE_MS = 300_000
KEY_MAX_BYTES = 256
# Receivers of a send with receipts in one script call: some 2 ms of Redis's time, in which it serves nobody else.
PART = 500


@dataclass(frozen=True, slots=True)
class _Send:
    """One script call of a send, and what it covers: receivers, or the channel."""

    call: Call
    covers: tuple[str, ...]


def retention(topology: Topology) -> tuple[Arg, Arg, Arg]:
    """The bounds of a log as the scripts want them: entries, bytes, milliseconds."""
    limits = topology.limits
    return limits.retain_entries, limits.retain_bytes, int(limits.retain_seconds * 1000)


class Sender:
    """Encodes, tells the hooks, publishes."""

    def __init__(self, view: View, hooks: list[Callable[[SendEvent], Any]]) -> None:
        self._view = view
        self._hooks = hooks

    def to_clients(self, sender: str, receivers: list[str], message: object, receipt: bool, key: str | None) -> str:
        """Publish to receivers (checked, each once) and return the message's id."""
        sent_id, key = self._identity(sender, key)
        payload = encode_message(message)
        topology = self._topology(sent_id, key, receivers)
        check_size(payload, topology.limits.max_payload_bytes)
        slots = {r: slot_of(r, topology.slots) for r in receivers}
        if not receivers:
            return sent_id
        self._tell(topology, sorted(set(slots.values())), sender, tuple(receivers), None, message)
        home = slot_of(sender, topology.slots)
        groups: dict[int, dict[int, list[str]]] = {}
        for receiver, slot in slots.items():
            groups.setdefault(group_of(slot, topology.groups), {}).setdefault(slot, []).append(receiver)
        head, sends = self._head(topology, sent_id, sender, payload), []
        for group, by_slot in groups.items():
            own = home if group_of(home, topology.groups) == group else ""
            parts = list(_parts(by_slot, PART)) if receipt else [by_slot]
            asked = 2 if len(parts) > 1 else int(receipt)
            for part in parts:
                args: list[Arg] = [*head, asked, own]
                for slot, names in part.items():
                    args += (slot, "\n".join(names))
                covers = tuple(name for names in part.values() for name in names)
                sends.append(_Send(Call(group, tuple(args), load("send")), covers))
        self._publish(sends, sent_id, key)
        return sent_id

    def to_chan(self, sender: str, chan: str, message: object, key: str | None) -> str:
        """Publish to a channel's members and return the message's id."""
        sent_id, key = self._identity(sender, key)
        payload = encode_message(message)
        topology = self._topology(sent_id, key, [chan])
        check_size(payload, topology.limits.max_payload_bytes)
        self._tell(topology, range(topology.slots), sender, (), chan, message)
        parts = (*self._head(topology, sent_id, sender, payload), chan)
        script = load("send_chan")
        self._publish([_Send(Call(g, parts, script), (chan,)) for g in range(topology.groups)], sent_id, key)
        return sent_id

    def _identity(self, sender: str, key: str | None) -> tuple[str, str]:
        """The message's id and its key. A made key is remembered as long: the error of a failed send offers it."""
        if key is None:
            key = make_key()
        elif not isinstance(key, str) or not 1 <= len(key.encode("utf-8", "surrogatepass")) <= KEY_MAX_BYTES:
            raise SettingError(f"idempotency_key must be a str of 1 to {KEY_MAX_BYTES} UTF-8 bytes")
        return message_id(sender, key), key

    def _topology(self, sent_id: str, key: str, covers: Sequence[str]) -> Topology:
        """The topology; a Redis that can't be asked for it covers nobody, which the error tells as any other."""
        try:
            return self._view.topology()
        except RedisUnavailableError as error:
            raise _repeatable(error, sent_id, key, covers) from (error.__cause__ or error)

    def _head(self, topology: Topology, sent_id: str, sender: str, payload: Payload) -> tuple[Arg, ...]:
        return (*retention(topology), sent_id, KEY_LIFE_MS, sender, payload.type, payload.data)

    def _tell(
        self,
        topology: Topology,
        slots: Sequence[int],
        sender: str,
        receivers: tuple[str, ...],
        chan: str | None,
        message: object,
    ) -> None:
        """Call the hooks; the first that raises stops the send."""
        if not self._hooks:
            return
        owners = (topology.server_of_slot(slot) for slot in slots)
        servers = tuple(dict.fromkeys(owner.name for owner in owners if owner is not None))
        event = SendEvent(sender, receivers, chan, message, servers)
        for hook in list(self._hooks):
            invoke(hook, event)

    def _publish(self, sends: list[_Send], sent_id: str, key: str) -> None:
        replies = self._view.gather([send.call for send in sends])
        failed = [(send, reply) for send, reply in zip(sends, replies, strict=True) if isinstance(reply, BaseException)]
        if not failed:
            return
        uncovered = dict.fromkeys(name for send, _ in failed for name in send.covers)
        error = failed[0][1]
        raise _repeatable(error, sent_id, key, tuple(uncovered)) from (error.__cause__ or error)


def _parts(by_slot: dict[int, list[str]], most: int) -> Iterator[dict[int, list[str]]]:
    """The receivers of a group, at most so many at a time; a slot is cut only where it must be."""
    part: dict[int, list[str]] = {}
    room = most
    for slot, names in by_slot.items():
        for at in range(0, len(names), most):
            some = names[at : at + most]
            if len(some) > room:
                yield part
                part, room = {}, most
            part[slot] = some
            room -= len(some)
    yield part


def _repeatable(error: BaseException, sent_id: str, key: str, uncovered: Sequence[str]) -> RedisUnavailableError:
    """The same error with what a repetition of the send needs."""
    return RedisUnavailableError(str(error), message_id=sent_id, idempotency_key=key, uncovered=uncovered)
