"""The operator's own metrics, as contract part 6 names them.
One registry a process; the shells count, Prometheus reads them on the admin port."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from .names import Key

__all__ = ["Metrics"]


class Metrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconcile = Counter(
            "imoperator_reconcile", "Reconciliations by result", ["result"], registry=self.registry
        )
        for result in ("ok", "error"):
            self.reconcile.labels(result)
        self.seconds = Histogram(
            "imoperator_reconcile_seconds",
            "How long a reconciliation takes",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )
        self.resync = Gauge(
            "imoperator_last_resync_timestamp_seconds",
            "When all ImClusters were last listed from the API",
            registry=self.registry,
        )
        self.leader = Gauge("imoperator_leader", "1 while this replica is the leader", registry=self.registry)
        self.degraded = Gauge(
            "imoperator_degraded",
            "1 while a cluster is degraded",
            ["namespace", "name"],
            registry=self.registry,
        )

    def forget(self, key: Key) -> None:
        """A cluster is no longer looked after by this process."""
        self.degraded.labels(*key)
        self.degraded.remove(*key)
