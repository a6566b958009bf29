"""Bounds how fast handshakes are taken and logs are read again, so that a reconnect storm leaves time for all else.
Pure: buckets of tokens and a bounded queue; the caller brings the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Gate", "Pace"]

T = TypeVar("T")


class Gate(Generic[T]):
    """Lets `rate` items a second pass, `burst` at once after a pause; up to `room` more wait in line."""

    def __init__(self, rate: float, burst: float, room: int) -> None:
        self._rate = rate
        self._burst = burst
        self._room = room
        self._tokens = burst
        self._at = float("-inf")
        self._line: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def enter(self, item: T, now: float) -> bool | None:
        """True: the item passes at once. None: it waits in line. False: the line is full."""
        if not self._line and self._take(now):
            return True
        if len(self._line) >= self._room:
            return False
        self._line.append(item)
        return None

    def due(self, now: float) -> Iterator[T]:
        """The items of the line that pass by now, first come first served."""
        while self._line and self._take(now):
            yield self._line.popleft()

    def _take(self, now: float) -> bool:
        if self._at > float("-inf"):
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Pace:
    """Turns at `rate` a second, `burst` at once after a pause. For few takers, for each of them waits its time."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def turn(self, now: float) -> float:
        """Take the next turn; in how many seconds it may begin."""
        if self._at > float("-inf"):
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)
