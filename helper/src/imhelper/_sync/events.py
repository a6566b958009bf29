"""The event bus: online and offline events of clients, to every subscriber or to one member of a group.
Generated from _async/events.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from .._backend._work_blocking import Background, invoke
from .._backend.blocking import Dedicated, Link
from .._backend.common import Call
from ..core.keys import events as events_key
from ..core.keys import group_tag
from ..errors import ImError
from .view import View

__all__ = ["Event", "Feed", "Subscription"]

logger = logging.getLogger("imhelper")

BATCH = 256
BLOCK_SECONDS = 0.5
POLL_SECONDS = 0.2
RETRY_SECONDS = 0.5
Callback = Callable[[str, str], Any]


class Event(NamedTuple):
    """One event as it was read: the group of keys, its id in the group's stream, and what it tells."""

    group: int
    id: bytes
    kind: bytes
    client: str
    slot: int
    metadata: str


def order(event_id: bytes) -> tuple[int, int]:
    """A stream id in a form that orders as Redis orders."""
    ms, _, n = event_id.partition(b"-")
    return int(ms), int(n or 0)


class Feed:
    """Reads the streams of events: one blocking read where there is one stream, else all of them in turn."""

    def __init__(self, link: Link, view: View) -> None:
        self._link = link
        self._view = view
        self._reader: Dedicated | None = None
        self._reader_group = -1

    def groups(self) -> int:
        """How many groups of keys there are, and so how many streams."""
        topology = self._view.topology_or_none()
        if topology is not None:
            return topology.groups
        self._link.ready()
        return self._link.groups

    def newest(self) -> dict[int, bytes]:
        """For each group the id of its last event: what comes after it comes from now on."""
        groups = range(self.groups())
        calls = [Call(g, ("XREVRANGE", self._key(g), "+", "-", "COUNT", 1)) for g in groups]
        found = {}
        for group, reply in zip(groups, self._link.gather(calls), strict=True):
            if isinstance(reply, BaseException):
                raise reply
            found[group] = reply[0][0] if reply else b"0-0"
        return found

    def read(self, after: dict[int, bytes], background: Background) -> list[Event]:
        """The next events of the groups named, each after the id given; waits up to half a second for some."""
        if len(after) == 1:
            [(group, last)] = after.items()
            if self._reader is None or self._reader_group != group:
                self.close()
                self._reader = self._link.dedicated(group, timeout=BLOCK_SECONDS + 5)
                self._reader_group = group
            block = int(BLOCK_SECONDS * 1000)
            try:
                reply = self._reader.call("XREAD", "COUNT", BATCH, "BLOCK", block, "STREAMS", self._key(group), last)
            except ImError:
                self.close()
                raise
            return self._parse(group, reply)
        calls = [Call(g, ("XREAD", "COUNT", BATCH, "STREAMS", self._key(g), last)) for g, last in after.items()]
        events: list[Event] = []
        for group, reply in zip(after, self._link.gather(calls), strict=True):
            if isinstance(reply, BaseException):
                raise reply
            events += self._parse(group, reply)
        if not events:
            background.pause(POLL_SECONDS)
        return events

    def close(self) -> None:
        """Close the connection of the blocking read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _key(self, group: int) -> str:
        return events_key(group_tag(self._link.prefix, group))

    def _parse(self, group: int, reply: Any) -> list[Event]:
        events = []
        for event_id, flat in reply[0][1] if reply else ():
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            client = fields[b"c"].decode("utf-8", "replace")
            metadata = fields[b"m"].decode("utf-8", "replace")
            events.append(Event(group, event_id, fields[b"e"], client, int(fields[b"s"]), metadata))
        return events


class Subscription:
    """A running subscription to online and offline events; made by `event_bus`. Closes with `close()` or `with`."""

    def __init__(self, feed: Feed, online: Callback, offline: Callback) -> None:
        self._feed = feed
        self._callbacks = {b"on": online, b"off": offline}
        self._background = Background("imhelper event bus", self._run)
        self._after: dict[int, bytes] = {}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._background.stopping

    def start(self) -> None:
        """Begin: every event from now on is covered once this returns. Raises RedisUnavailableError."""
        self._after = self._feed.newest()
        self._background.start()

    def close(self) -> None:
        """End the subscription. A callback under way is waited for (unless it is the one that calls this)."""
        self._background.stop()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        """Read and call back until asked to stop; Redis may be away meanwhile."""
        try:
            while not self._background.stopping:
                try:
                    self._step()
                except ImError as error:
                    logger.warning("the event bus waits for Redis: %s", error)
                    self._background.pause(RETRY_SECONDS)
                except Exception:
                    logger.exception("the event bus goes on after an error")
                    self._background.pause(RETRY_SECONDS)
        finally:
            self._feed.close()

    def _step(self) -> None:
        for event in self._feed.read(self._after, self._background):
            if self._background.stopping:
                return
            self._call_back(event)
            self._after[event.group] = event.id

    def _call_back(self, event: Event) -> None:
        """Run the callback of an event. An error in it is reported and the event counts as done."""
        callback = self._callbacks.get(event.kind)
        if callback is None:
            return
        try:
            invoke(callback, event.client, event.metadata)
        except Exception:
            logger.exception("an event bus callback failed for client %r", event.client)
