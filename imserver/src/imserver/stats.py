"""The counters of a server: plain numbers on the hot path, read by the metrics when they are asked for.
A histogram is a list of counts, so that observing costs one search and two additions."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

__all__ = ["Histogram", "Stats"]


class Histogram:
    """Counts of observations by upper bound, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Stats:
    """What only this process can count; gauges are taken from the state itself when asked for."""

    def __init__(self) -> None:
        self.handshakes: Counter[str] = Counter()
        self.disconnects: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.resumes: Counter[str] = Counter()
        self.receipts: Counter[str] = Counter()
        self.delivery = Histogram((0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0))
        self.slow_consumers = 0
        self.gaps = 0
        self.moves = 0
        self.fenced = 0
        self.reclaims = 0
        # 1 while Redis holds a topology that this server can't serve by.
        self.topology_refused = 0
        self.reader_lag = 0.0
        self.loop_lag = 0.0
