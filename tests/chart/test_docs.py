# The pages about Kubernetes against charts, code and the API server: tables are complete, examples are accepted.
# A Prometheus configuration is given to promtool.

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

from imoperator.crd import crd
from imoperator.metrics import Metrics
from imoperator.model import Defaults
from imoperator.names import API_VERSION, KIND
from imoperator.observe import read_cluster
from imoperator.spec import parse_spec
from imoperator.workload import pod_template
from tests.chart.charts import CHARTS, DEMO, MAIN, named, objects, of_kind
from tests.support import docs
from tests.support.kube import install_crd, kubectl, require
from tools import crd_reference

PAGES = ("README.md", *(f"docs/{page}.md" for page in ("install", "exposure", "operations", "security", "runbook")))
SCRAPING = "scrape_configs"


def _examples() -> list[Any]:
    found = []
    for page in PAGES:
        for number, text in enumerate(docs.blocks(docs.read(page), "yaml")):
            found += [pytest.param(m, id=f"{page}-{number}") for m in yaml.safe_load_all(text) if SCRAPING not in m]
    return found


def test_the_reference_is_the_generated_one():
    assert docs.read("docs/crd.md") == crd_reference.page(), "run: python tools/crd_reference.py"


def test_the_reference_has_every_field_of_the_spec():
    fields = {docs.ticked(row[0])[0] for row in docs.rows(docs.read("docs/crd.md"), "field")}
    assert {"replicas", "redis.passwordFrom.secretKeyRef.key", "exposure.gateway.parentRefs[].name"} <= fields
    assert {"conditions[].reason", "servers[].slots"} <= fields


@pytest.mark.parametrize("manifest", _examples())
def test_examples_are_read_by_the_operator(manifest):
    if manifest["kind"] == "ImCluster":
        metadata = {"namespace": "ns", "uid": "uid"} | manifest["metadata"]
        cluster = read_cluster(manifest | {"metadata": metadata})
        assert cluster.spec.redis.url


@pytest.mark.parametrize("manifest", _examples())
def test_examples_are_taken_by_the_api_server(manifest):
    require("kubectl")
    install_crd()
    placed = manifest | {"metadata": manifest["metadata"] | {"namespace": "default", "generateName": "example-"}}
    del placed["metadata"]["name"]
    kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(placed))


def test_the_autoscaler_scales_what_there_is():
    (text,) = [t for t in docs.blocks(docs.read("docs/operations.md"), "yaml") if "HorizontalPodAutoscaler" in t]
    manifest = yaml.safe_load(text)
    # A field that the API does not know would be lost on the way.
    assert HorizontalPodAutoscaler.from_dict(manifest).to_dict() == manifest
    (version,) = crd()["spec"]["versions"]
    assert "scale" in version["subresources"]
    target = manifest["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (API_VERSION, KIND)
    assert manifest["spec"]["maxReplicas"] <= parse_spec({"redis": {}}).exposure.max_ordinals
    # The metric is a share of what the servers' container asks for.
    cluster = read_cluster({"metadata": {"namespace": "ns", "name": "chat", "uid": "uid"}, "spec": {"redis": {}}})
    (container,) = pod_template(cluster, Defaults("image"), {})["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"]


def test_the_notes_example_is_an_imcluster_of_ten_lines_at_most():
    notes = (CHARTS / MAIN / "templates" / "NOTES.txt").read_text("utf-8")
    found = re.search(r"<<'END'\n(.*?)   END", notes, re.DOTALL)
    assert found is not None
    text = found[1].replace("{{ $namespace }}", "default")
    assert len(text.splitlines()) <= 10
    manifest = yaml.safe_load(text)
    manifest["metadata"]["uid"] = "uid"
    assert read_cluster(manifest).spec.exposure.url_template == "ws://localhost:6001/ws"


def test_promtool_takes_the_scrape_configuration(tmp_path):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    (text,) = [t for t in docs.blocks(docs.read("docs/operations.md"), "yaml") if SCRAPING in t]
    # Debian's Prometheus is built without the discovery in Kubernetes; the rest of the file is what it must take.
    discovery = "kubernetes_sd_configs: [{role: pod}]"
    assert text.count(discovery) == 2
    (tmp_path / "prometheus.yml").write_text(text.replace(discovery, "static_configs: [{targets: [localhost]}]"))
    command = [program, "check", "config", "--syntax-only", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)[SCRAPING]}
    targets = {r.get("target_label") for r in jobs["imserver"]["relabel_configs"]}
    assert {"namespace", "pod", "imcluster"} <= targets
    assert jobs["imoperator"]["honor_labels"] is True


def test_the_operators_metrics_are_all_told():
    rows = {docs.ticked(row[0])[0]: row for row in docs.rows(docs.read("docs/operations.md"), "operator metric")}
    metrics = Metrics()
    metrics.degraded.labels("ns", "name").set(0)
    families = {m.name + "_total" * (m.type == "counter"): m for m in metrics.registry.collect()}
    own = {name: family for name, family in families.items() if name.startswith("imoperator_")}
    assert set(rows) == set(own)
    for name, family in own.items():
        assert rows[name][1] == family.type, name
        labels = {label for sample in family.samples for label in sample.labels}
        assert set(docs.ticked(rows[name][2])) == labels, name


def test_every_rule_is_explained():
    """Rule by rule what docs/security.md says is what the chart grants."""
    told = set()
    for group, resources, verbs, why in docs.rows(docs.read("docs/security.md"), "API group"):
        name = "" if group == "core" else docs.ticked(group)[0]
        assert len(why) > 10
        told |= {(name, r, v) for r in docs.ticked(resources) for v in docs.ticked(verbs)}
    found = objects(MAIN)
    bound = {b["roleRef"]["name"] for b in found if b["kind"].endswith("Binding")}
    roles = [o for o in of_kind(found, "ClusterRole") + of_kind(found, "Role") if o["metadata"]["name"] in bound]
    rules = [rule for role in roles for rule in role["rules"]]
    granted = {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    assert told == granted


def test_the_values_are_all_told():
    text = docs.section(docs.read("docs/install.md"), "## Values of the chart imcluster")
    told: set[str] = set()
    for row in docs.rows(text, "value"):
        first = ""
        for name in docs.ticked(row[0]):
            full = first.rpartition(".")[0] + name if name.startswith(".") else name
            told.add(full)
            first = full
    schema = json.loads((CHARTS / MAIN / "values.schema.json").read_text())

    def leaves(at: dict[str, Any], path: str) -> Iterator[str]:
        for name, inner in at.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield from leaves(inner, here) if "properties" in inner else [here]

    assert told == set(leaves(schema, "")) - {"global"}


def test_the_reasons_of_degraded_are_all_told():
    sources = "".join(p.read_text("utf-8") for p in sorted((docs.ROOT / "operator" / "src").rglob("*.py")))
    reasons = set(re.findall(r'Problem\("(\w+)"', sources))
    at_rest = {"Ready", "Settled", "Healthy", "Paused", "Waiting", "Starting", "ScalingDown", "RollingOut"}
    told = {docs.ticked(row[0])[0] for row in docs.rows(docs.read("docs/operations.md"), "reason of Degraded")}
    assert told == reasons - at_rest


def test_the_demo_of_the_install_page_is_the_charts():
    text = docs.section(docs.read("docs/install.md"), "## A chat in your browser")
    found = objects(DEMO)
    for service, port in re.findall(r"port-forward svc/chat(\S*) (\d+):", text):
        name = f"trial{service}"
        if service:
            assert named(found, "Service", name)["spec"]["ports"][0]["port"] == int(port)
        else:
            template = named(found, "ImCluster", name)["spec"]["exposure"]["urlTemplate"]
            assert template == f"ws://localhost:{port}/ws"
