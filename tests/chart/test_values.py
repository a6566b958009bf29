# values.yaml, values.schema.json and the templates know the same values; what is misspelt or impossible is refused.
# So is an ImCluster that could not work, before the API server has to say so.

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.charts import CHARTS, DEMO, MAIN, refusal

# Maps whose keys are the user's.
FREE = {
    ("serviceAccount", "annotations"),
    ("resources",),
    ("metrics", "grafanaDashboard", "labels"),
    ("imcluster", "spec"),
    ("valkey", "resources"),
    ("webchat", "resources"),
}


Path = tuple[str, ...]


def _schema(chart: str) -> Any:
    return json.loads((CHARTS / chart / "values.schema.json").read_text())


def _values(chart: str) -> Any:
    return yaml.safe_load((CHARTS / chart / "values.yaml").read_text())


def _leaves(values: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value and here not in FREE:
            yield from _leaves(value, here)
        else:
            yield here


def _described(schema: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    for name, inner in schema.get("properties", {}).items():
        for one in inner.get("oneOf", [inner]):
            if "properties" in one:
                yield from _described(one, (*path, name))
                break
        else:
            yield (*path, name)


@pytest.mark.parametrize("chart", [MAIN, DEMO])
def test_schema_and_values_name_the_same(chart):
    described = set(_described(_schema(chart))) - {("global",)}
    assert set(_leaves(_values(chart))) == described


@pytest.mark.parametrize("chart", [MAIN, DEMO])
def test_every_object_of_the_schema_is_closed_or_the_users(chart):
    def check(schema: dict[str, Any], path: Path) -> None:
        if schema.get("type") == "object":
            assert schema.get("description"), path
            assert "properties" not in schema or schema["additionalProperties"] is False, path
        for name, inner in schema.get("properties", {}).items():
            check(inner, (*path, name))

    check(_schema(chart), (chart,))


@pytest.mark.parametrize("chart", [MAIN, DEMO])
def test_every_value_is_used(chart):
    text = "".join(p.read_text() for p in sorted((CHARTS / chart / "templates").rglob("*")) if p.is_file())
    for path in _leaves(_values(chart)):
        # A template may hold a part in a variable: the last name must stand behind a dot.
        assert re.search(rf"\.{path[-1]}\b", text), ".".join(path)


@pytest.mark.parametrize("chart", [MAIN, DEMO])
def test_values_are_explained(chart):
    lines = (CHARTS / chart / "values.yaml").read_text().splitlines()
    assert lines[0].startswith("# Values of the chart")


@pytest.mark.parametrize(
    ("chart", "given", "named"),
    [
        (MAIN, "replica=2", "replica"),
        (MAIN, "replicas=many", "replicas"),
        (MAIN, "replicas=-1", "replicas"),
        (MAIN, "imagePullPolicy=Sometimes", "imagePullPolicy"),
        (MAIN, "operator.image.digest=latest", "digest"),
        (MAIN, "runAsUser=0", "runAsUser"),
        (MAIN, "operator.logLevel=loud", "logLevel"),
        (MAIN, "operator.resyncSeconds=0", "resyncSeconds"),
        (MAIN, "watchNamespaces={Upper}", "watchNamespaces"),
        (MAIN, "watchNamespaces=one", "watchNamespaces"),
        (MAIN, "crds.install=maybe", "install"),
        (MAIN, "metrics.podMonitor.interval=often", "interval"),
        (MAIN, "metrics.prometheusrule.enabled=true", "prometheusrule"),
        (MAIN, "imagePullSecrets[0].nam=x", "imagePullSecrets"),
        (DEMO, "valkey.enable=false", "enable"),
        (DEMO, "valkey.persistence.size=much", "persistence"),
        (DEMO, "webchat.service.port=0", "port"),
        (DEMO, "webchat.service.type=ExternalName", "type"),
        (DEMO, "imcluster.replicas=3", "replicas"),
        (DEMO, "imcluster.name=Chat", "imcluster.name must be lower-case"),
        (DEMO, "imcluster.name=" + "x" * 53, "name"),
        (DEMO, "valkey.enabled=false", "imcluster.spec.redis must have a url or a urlFrom"),
    ],
)
def test_bad_values_are_refused_by_name(chart, given, named):
    assert named in refusal(chart, "--set", given)
