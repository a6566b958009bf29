"""The metrics of contract part 6, collected from the state when Prometheus asks for them.
The hot path only counts; nothing here runs unless /metrics is read."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import __version__
from .reader import Reader

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["ServerCollector", "make_registry"]

# Labels that are always shown, so that a rate exists before the first event.
_KINDS = ("message", "channel", "receipt")
_HANDSHAKES = (
    *("ok", "unauthorized", "forbidden", "not_found", "bad_request", "timeout"),
    *("busy", "full", "draining", "unavailable"),
)
_CODES = ("1000", "1001", "1006", "1009", "1012", "4000", "4001", "4002", "4500", "4501", "4502")
_RESUMES = ("recovered", "lost", "plain")
_STATUSES = ("delivered", "offline")


def _counter(name: str, text: str, label: str, counts: Mapping[str, int], always: Iterable[str] = ()) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value in dict.fromkeys([*always, *counts]):
        family.add_metric([value], counts.get(value, 0))
    return family


class ServerCollector(Collector):
    """Turns the state of a hub into metric families."""

    def __init__(self, hub: Hub, readers: Callable[[], list[Reader]]) -> None:
        self._hub = hub
        self._readers = readers

    def collect(self) -> Iterable[Metric]:
        """All families of contract part 6."""
        hub, stats = self._hub, self._hub.stats
        gauges: dict[str, tuple[str, float]] = {
            "imserver_connections": ("Open WebSockets", hub.open_count),
            "imserver_clients": ("Clients with at least one WebSocket here", hub.members()),
            "imserver_channels": (
                "Channels with a live member here",
                len({c for s in list(hub.slots.values()) for c in list(s.fans)}),
            ),
            "imserver_write_buffer_bytes": (
                "Bytes that wait in user space to be written",
                sum(s.transport.get_write_buffer_size() for s in list(hub.connected)),
            ),
            "imserver_slots_owned": ("Slots that the table gives this server", self._owned()),
            "imserver_topology_epoch": ("Epoch of the topology in force", hub.topology.epoch if hub.topology else 0),
            "imserver_topology_refused": (
                "1 while Redis holds a topology that can't be put in force here",
                stats.topology_refused,
            ),
            "imserver_redis_up": ("1 while Redis answers", int(hub.redis_up)),
            "imserver_reader_lag_seconds": (
                "How long an entry takes from Redis to this server, by the canary",
                max([stats.reader_lag, *(r.lag for r in self._readers())]),
            ),
            "imserver_draining": ("1 while this server sends its clients away", int(hub.draining)),
            "imserver_max_connections": ("Open WebSockets at the most", hub.room.connections),
            "imserver_loop_lag_seconds": ("How late the event loop was at its last check", stats.loop_lag),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        yield _counter("imserver_handshakes", "Handshakes by result", "result", stats.handshakes, _HANDSHAKES)
        yield _counter("imserver_disconnects", "Closed WebSockets by close code", "code", stats.disconnects, _CODES)
        yield _counter("imserver_messages_received", "Entries read from Redis", "kind", stats.received, _KINDS)
        yield _counter("imserver_messages_delivered", "Frames written to sockets", "kind", stats.delivered, _KINDS)
        yield _counter("imserver_resumes", "Sockets that continued an earlier one", "result", stats.resumes, _RESUMES)
        yield _counter("imserver_receipts", "Receipts written to senders", "status", stats.receipts, _STATUSES)
        plain: dict[str, tuple[str, int]] = {
            "imserver_slow_consumers": ("Sockets closed because their buffer was full", stats.slow_consumers),
            "imserver_gaps": ("Jumps found in a log", stats.gaps),
            "imserver_moves": ("Clients told to move to another server", stats.moves),
            "imserver_fenced": ("Times this server found itself fenced", stats.fenced),
            "imserver_reclaims": ("Sockets of dead servers taken back", stats.reclaims),
        }
        for name, (text, count) in plain.items():
            yield CounterMetricFamily(name, text, count)
        yield self._delivery()
        info = {"version": __version__, "python": platform.python_version(), "server": hub.settings.server_name}
        build = GaugeMetricFamily("imserver_build_info", "What runs here; always 1", labels=list(info))
        build.add_metric(list(info.values()), 1)
        yield build

    def _owned(self) -> int:
        topology = self._hub.topology
        if topology is None:
            return 0
        names = [s.name for s in topology.servers]
        me = self._hub.settings.server_name
        return topology.table.count(names.index(me)) if me in names else 0

    def _delivery(self) -> Metric:
        histogram = self._hub.stats.delivery
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*histogram.bounds, float("inf")], histogram.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        family = HistogramMetricFamily(
            "imserver_delivery_seconds", "From accepted by Redis to written, on Redis's clock"
        )
        family.add_metric([], buckets, histogram.total)
        return family


def make_registry(hub: Hub, readers: Callable[[], list[Reader]]) -> CollectorRegistry:
    """A registry with this server's metrics and those of the process."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(hub, readers))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
