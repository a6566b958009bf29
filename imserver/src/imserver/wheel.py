"""One timer wheel for all pings: no timer and no task per socket.
A socket stays in the bucket of the tick at which it came, and is looked at once a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Wheel"]

T = TypeVar("T")


class Wheel(Generic[T]):
    """`buckets` buckets; each `tick` returns the next one's items.

    The caller ticks it every `round / buckets` seconds, so each item comes up once a round.
    """

    __slots__ = ("_at", "_buckets")

    def __init__(self, buckets: int) -> None:
        self._buckets: list[set[T]] = [set() for _ in range(buckets)]
        self._at = 0

    @property
    def size(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def add(self, item: T) -> int:
        """Put an item where it comes up last, a full round from now. Returns the bucket, which `remove` wants."""
        bucket = self._at - 1 if self._at else len(self._buckets) - 1
        self._buckets[bucket].add(item)
        return bucket

    def remove(self, item: T, bucket: int) -> None:
        """Take an item out. An item that is not there is passed over."""
        self._buckets[bucket].discard(item)

    def tick(self, look: Callable[[T], None]) -> None:
        """Call `look` for each item of the next bucket; it may remove items."""
        items = tuple(self._buckets[self._at])
        self._at = (self._at + 1) % len(self._buckets)
        for item in items:
            look(item)
