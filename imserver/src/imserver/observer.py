"""Who is dead, judged by what this server itself has seen: beats that stood still on its own monotonic clock.
Pure: fed with what each beat returned. A Redis outage, a frozen observer or a jumping clock condemns nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Observer", "Silent"]


@dataclass(frozen=True, slots=True)
class Silent:
    """A server whose beat stood still for a whole lease."""

    name: str
    boot: str
    beat: int


class Observer:
    """Watches the beat counters of all servers.

    A server is silent when its counter stood still for `lease` seconds in which this observer renewed its own lease
    without an error, at least every half lease, on one run of Redis.
    """

    def __init__(self, me: str, lease: float) -> None:
        self._me = me
        self._lease = lease
        self._run: str | None = None
        self._steady_since = 0.0
        self._last = float("-inf")
        self._seen: dict[str, tuple[str, int, float]] = {}

    def next_deadline(self) -> float:
        """When the next server would be silent if it stays so, on the clock that `observed` is fed with."""
        waits = [max(seen[2], self._steady_since) for name, seen in self._seen.items() if name != self._me]
        return min(waits, default=float("inf")) + self._lease

    def failed(self) -> None:
        """The own beat failed: what the others did meanwhile is not known."""
        self._last = float("-inf")

    def observed(self, now: float, run: str, beats: Mapping[str, tuple[str, int]]) -> list[Silent]:
        """The own beat succeeded and showed these (boot, counter). Returns who is silent, in order of names."""
        if run != self._run or now - self._last > self._lease / 2:
            self._steady_since = now
        self._run, self._last = run, now
        self._seen = {n: s for n, s in self._seen.items() if n in beats}
        silent = []
        for name, (boot, beat) in sorted(beats.items()):
            seen = self._seen.get(name)
            if seen is None or seen[:2] != (boot, beat):
                self._seen[name] = (boot, beat, now)
            elif name != self._me and now - max(seen[2], self._steady_since) >= self._lease:
                silent.append(Silent(name, boot, beat))
        return silent
