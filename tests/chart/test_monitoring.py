# Alerts and dashboard: they name metrics that exist, the alerts fire when they should (promtool), each has its entry in
# the runbook, and the dashboard shows first what one looks at first.

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import CollectorRegistry

from imhelper._backend.aio import Link
from imhelper.core.redis_url import parse_redis_url
from imoperator.metrics import Metrics
from imoperator.model import Cluster, Defaults
from imoperator.names import Key
from imoperator.spec import parse_spec
from imoperator.workload import pod_template
from imserver.hub import Hub
from imserver.metrics import ServerCollector
from imserver.settings import load_settings
from tests.chart.charts import CHARTS, MAIN, named, objects, of_kind
from tests.support import docs

ALERTS = ["RedisDown", "ReaderLag", "Gaps", "NearCapacity", "SlowConsumers", "ReconnectStorm"]
ALERTS += ["RolloutStuck", "OperatorStale", "ReconcileFailing", "NoLeader"]
TESTS = Path(__file__).parent / "alerts.yaml"
RULES_ON = ("--set", "metrics.prometheusRule.enabled=true")
METRIC = re.compile(r"\bim(?:server|operator)_\w+")


def _dashboard() -> Any:
    return json.loads((CHARTS / MAIN / "dashboards" / "imcluster.json").read_text("utf-8"))


def _rules(*options: str) -> Any:
    (rule,) = of_kind(objects(MAIN, None, *RULES_ON, *options), "PrometheusRule")
    return rule["spec"]


def _alerts(*options: str) -> dict[str, Any]:
    return {rule["alert"]: rule for group in _rules(*options)["groups"] for rule in group["rules"]}


def _names_and_labels() -> dict[str, set[str]]:
    """What servers and operator are scraped for: the name of each sample, and its labels."""
    hub = Hub(load_settings({}), Link(parse_redis_url("redis://127.0.0.1"), prefix="im"))
    hub.stats.disconnects["1000"] += 1
    registry = CollectorRegistry()
    registry.register(ServerCollector(hub, lambda: []))
    operator = Metrics()
    operator.degraded.labels("ns", "name").set(0)
    found: dict[str, set[str]] = {}
    for source in (registry, operator.registry):
        for family in source.collect():
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _expressions() -> list[tuple[str, str]]:
    found = [(f"alert {name}", rule["expr"]) for name, rule in _alerts().items()]
    for panel in _dashboard()["panels"]:
        found += [(f"panel {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_every_alert_of_the_contract_is_there():
    assert list(_alerts()) == ALERTS


def test_alerts_are_complete():
    for name, rule in _alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name


def test_metrics_exist():
    known = _names_and_labels()
    for where, expression in _expressions():
        names = METRIC.findall(expression)
        assert names, where
        assert [n for n in names if n not in known] == [], where


def test_labels_exist():
    """A matcher on a label that a metric does not have would match nothing, for ever."""
    known = _names_and_labels()
    scraped = {"namespace", "pod", "imcluster"}
    for where, expression in _expressions():
        for name, matchers in re.findall(r"\b(im(?:server|operator)_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))
            assert labels <= known[name] | scraped, where


def test_alerts_have_a_runbook_entry():
    text = docs.read("docs/runbook.md")
    for name, rule in _alerts().items():
        entry = docs.section(text, f"## {name}")
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        for heading in ("What it means", "Look at", "Do"):
            assert f"**{heading}.**" in entry, f"{name}: {heading}"
    headings = re.findall(r"^## (\w+)$", docs.prose(text), re.MULTILINE)
    assert [h for h in headings if h in ALERTS] == ALERTS


def test_the_runbook_can_be_anywhere():
    rule = _alerts("--set", "metrics.prometheusRule.runbookUrl=https://runbooks.example.org/im")["Gaps"]
    assert rule["annotations"]["runbook_url"] == "https://runbooks.example.org/im#gaps"


def test_promtool_knows_the_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(_rules()))
    checked = _promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shutil.copy(TESTS, tmp_path)
    tested = _promtool("test", "rules", TESTS.name, folder=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_for_firing_and_for_silence():
    outcomes: dict[str, set[bool]] = {}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            outcomes.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert outcomes == {name: {True, False} for name in ALERTS}


def test_alerts_keep_to_the_namespaces_that_are_looked_after():
    for name, rule in _alerts("--set", "watchNamespaces={shop,mail}").items():
        for matchers in re.findall(r"imserver_\w+\{([^}]*)\}", rule["expr"]):
            assert 'namespace=~"shop|mail"' in matchers, name


def test_stale_follows_the_resync():
    assert _alerts()["OperatorStale"]["expr"].endswith("> 150")
    assert _alerts("--set", "operator.resyncSeconds=60")["OperatorStale"]["expr"].endswith("> 300")


def test_the_dashboard_shows_first_what_matters_first():
    titles = [p["title"] for p in sorted(_dashboard()["panels"], key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"]))]
    assert titles[0] == "Connections per pod"
    words = ["Connections", "Delivery rate", "latency", "Reader lag", "Resumes", "Slow consumers", "Epoch", "Redis"]
    places = [next(i for i, title in enumerate(titles) if word in title) for word in words]
    assert places == sorted(places)


def test_the_dashboards_panels_do_not_overlap_and_are_explained():
    taken: set[tuple[int, int]] = set()
    ids = [p["id"] for p in _dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    for panel in _dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_dashboards_expressions_are_promql(tmp_path):
    """As rules, since promtool parses those; Grafana's variables stand for a duration and for patterns."""
    records = []
    for number, (_, expression) in enumerate(_expressions()):
        text = expression.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$imcluster", ".*")
        records.append({"record": f"panel:{number}", "expr": text})
    rules = {"groups": [{"name": "panels", "rules": records}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    checked = _promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _panel(title: str) -> str:
    """The first expression of a panel, for any namespace and ImCluster."""
    (panel,) = [p for p in _dashboard()["panels"] if p["title"] == title]
    text: str = panel["targets"][0]["expr"]
    return text.replace("$namespace", ".*").replace("$imcluster", ".*")


def test_the_dashboard_keeps_apart_what_is_called_the_same(tmp_path):
    """Two namespaces have a cluster of the same name: neither are its pods added up, nor its epochs compared."""

    def series(metric: str, values: dict[tuple[str, str], int]) -> list[dict[str, str]]:
        labels = 'imcluster="chat"'
        return [
            {"series": f'{metric}{{namespace="{ns}", pod="{pod}", {labels}}}', "values": str(value)}
            for (ns, pod), value in values.items()
        ]

    def samples(title: str, labels: str, values: dict[tuple[str, str], int]) -> dict[str, Any]:
        found = [
            {"labels": "{" + labels.format(ns=ns, pod=pod) + "}", "value": value} for (ns, pod), value in values.items()
        ]
        return {"expr": _panel(title), "eval_time": "0", "exp_samples": found}

    connections = {("mail", "chat-0"): 3, ("shop", "chat-0"): 4}
    epochs = {("mail", "chat-0"): 100, ("mail", "chat-1"): 102, ("shop", "chat-0"): 7000}
    behind = {("mail", "chat-0"): 0, ("mail", "chat-1"): 2, ("shop", "chat-0"): 0}
    test = {
        "interval": "1m",
        "input_series": series("imserver_connections", connections) + series("imserver_topology_epoch", epochs),
        "promql_expr_test": [
            samples("Connections per pod", 'namespace="{ns}", pod="{pod}"', connections),
            samples("Epoch", 'imcluster="chat", namespace="{ns}", pod="{pod}"', behind),
        ],
    }
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    tested = _promtool("test", "rules", "panels.yaml", folder=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for where, expression in _expressions():
        if where.startswith("panel "):
            for names in re.findall(r"\bby \(([^)]*\bpod\b[^)]*)\)", expression):
                assert "namespace" in names, where


def test_the_dashboard_is_a_config_map_for_the_sidecar():
    found = objects(MAIN, None, "--set", "metrics.grafanaDashboard.enabled=true")
    carrier = named(found, "ConfigMap", "trial-operator-dashboard")
    assert carrier["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(carrier["data"]["imcluster.json"]) == _dashboard()


def test_what_is_scraped_carries_the_labels_that_the_alerts_need():
    found = objects(MAIN, None, "--set", "metrics.podMonitor.enabled=true")
    operator = named(found, "PodMonitor", "trial-operator")["spec"]
    servers = named(found, "PodMonitor", "trial-operator-imservers")["spec"]
    assert operator["podMetricsEndpoints"][0]["honorLabels"] is True
    assert servers["namespaceSelector"] == {"any": True}
    (relabeling,) = servers["podMetricsEndpoints"][0]["relabelings"]
    assert relabeling["targetLabel"] == "imcluster"
    pod = named(found, "Deployment", "trial-operator")["spec"]["template"]
    assert operator["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = {p["name"] for c in pod["spec"]["containers"] for p in c["ports"]}
    assert operator["podMetricsEndpoints"][0]["port"] in ports


def test_the_servers_pods_are_those_that_are_scraped():
    cluster = Cluster(Key("shop", "chat"), "uid", 1, parse_spec({"redis": {"url": "redis://redis"}}))
    pod = pod_template(cluster, Defaults("image"), {})
    found = objects(MAIN, None, "--set", "metrics.podMonitor.enabled=true")
    monitor = named(found, "PodMonitor", "trial-operator-imservers")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "chat"
    ports = {p["name"] for p in pod["spec"]["containers"][0]["ports"]}
    assert monitor["podMetricsEndpoints"][0]["port"] in ports
    policies = objects(MAIN, "namespaced-values")
    for policy in of_kind(policies, "NetworkPolicy"):
        if policy["metadata"]["name"].endswith("-imservers"):
            assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            assert {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]} <= ports
