"""Which servers are dead, judged by beats that stood still on this process's own monotonic clock.
A Redis that was away, a frozen operator or a jumping clock condemns nobody: the time starts again after each gap."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from imhelper.core.leases import Lease

__all__ = ["Beats"]


class Beats:
    """Fed with every view of the leases; remembers since when each server shows the same beat, or none."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[str, int] | None, float]] = {}
        self._last = float("-inf")
        self._steady_since = 0.0

    def observe(
        self, now: float, leases: Mapping[str, Lease], expected: Collection[str], lease_seconds: float
    ) -> frozenset[str]:
        """Record a view taken at `now` (monotonic seconds) and return the names that are dead.

        A server is dead when its beat stood still, or its lease was absent, for `lease_seconds` in which views came
        at least every half of that. `expected` are servers that should have a lease.
        """
        if now - self._last > max(lease_seconds / 2, 2.5):
            self._steady_since = now
        self._last = now
        names = set(leases) | set(expected)
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        dead = set()
        for name in names:
            lease = leases.get(name)
            beat = (lease.boot, lease.beat) if lease else None
            if name not in self._seen or self._seen[name][0] != beat:
                self._seen[name] = (beat, now)
            elif now - max(self._seen[name][1], self._steady_since) >= lease_seconds:
                dead.add(name)
        return frozenset(dead)
