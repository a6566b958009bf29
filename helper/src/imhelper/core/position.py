"""POS, the opaque position in a client's stream: the incarnation of the log and a stream id `ms-n`.
`n` is dense per slot, so a jump in it tells of trimmed or lost history."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ZERO", "Position", "StreamId", "parse_id", "parse_position"]

_POSITION = re.compile(rb"(\d{1,12})\.(\d{1,15})-(\d{1,15})", re.ASCII)


class StreamId(NamedTuple):
    """A stream id: milliseconds of Redis's clock and the entry's number in its slot. Orders as Redis orders."""

    ms: int
    n: int

    def __bytes__(self) -> bytes:
        return b"%d-%d" % self


class Position(NamedTuple):
    """An incarnation and a stream id, as a client holds it."""

    incarnation: int
    id: StreamId

    def __bytes__(self) -> bytes:
        return b"%d.%d-%d" % (self.incarnation, self.id.ms, self.id.n)


ZERO = StreamId(0, 0)


def parse_id(raw: bytes) -> StreamId:
    """A stream id as Redis writes it. Raises ValueError for anything else."""
    ms, _, n = raw.partition(b"-")
    return StreamId(int(ms), int(n))


def parse_position(raw: str | bytes) -> Position | None:
    """The position that a client sent, or None when it is unreadable: a client may send anything."""
    if isinstance(raw, str):
        if not raw.isascii():
            return None
        raw = raw.encode()
    found = _POSITION.fullmatch(raw)
    if found is None:
        return None
    incarnation, ms, n = (int(g) for g in found.groups())
    return Position(incarnation, StreamId(ms, n))
