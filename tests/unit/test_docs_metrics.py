# docs/metrics.md against what the registry of a server gives: each metric once, with its type and labels.
# And no alert may name a metric that does not exist.

import re

from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from imhelper._backend.aio import Link
from imhelper.core.redis_url import parse_redis_url
from imserver.hub import Hub
from imserver.metrics import ServerCollector
from imserver.settings import load_settings
from tests.support import docs

TEXT = docs.read("docs/metrics.md")
ROWS = {docs.ticked(row[0])[0]: row for row in docs.rows(TEXT, "metric")}


def _families() -> dict[str, Metric]:
    """Every family of a server by the name that is scraped, with one made-up close so that each has a sample."""
    hub = Hub(load_settings({}), Link(parse_redis_url("redis://127.0.0.1"), prefix="im"))
    hub.stats.disconnects["1000"] += 1
    collector: Collector = ServerCollector(hub, lambda: [])
    CollectorRegistry().register(collector)
    return {m.name + "_total" * (m.type == "counter"): m for m in collector.collect()}


def test_every_metric_is_documented_and_nothing_else():
    assert set(ROWS) == set(_families())


def test_types_and_labels_are_the_codes():
    for name, family in _families().items():
        labels = {label for sample in family.samples for label in sample.labels}
        assert ROWS[name][1] == family.type, name
        assert set(docs.ticked(ROWS[name][2])) == labels, name


def test_the_values_of_labels_are_told():
    for name, family in _families().items():
        for sample in family.samples:
            for label in ("result", "kind", "status"):
                if label in sample.labels and name != "imserver_messages_delivered_total":
                    assert sample.labels[label] in docs.ticked(ROWS[name][3]), name


def test_alerts_name_metrics_that_exist():
    known = set(_families()) | {f"imserver_delivery_seconds_{part}" for part in ("bucket", "count", "sum")}
    for condition, _, _ in docs.rows(TEXT, "condition"):
        for name in re.findall(r"imserver_\w+", condition):
            assert name in known, condition
