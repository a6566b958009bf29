# The operator, installed once by its chart; a namespace for each test; at the end a table of what was measured.
# Images must be in the cluster already: see docs/install.md, "Images".

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stage import IMSERVER, Stage, helm
from tests.support.kube import apply, install_crd, kubectl, require

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = os.environ.get("IM_E2E_OPERATOR", "localhost/operator:dev")
_ROWS: list[tuple[str, dict[str, Any]]] = []
_SHOWN = ("lost", "duplicates", "disorder", "gaps", "most_moves", "highest_share", "longest_away", "seconds")

Record = Callable[..., None]


def _values(image: str, chart: str) -> list[str]:
    repository, _, tag = image.rpartition(":")
    return ["--set", f"{chart}.image.repository={repository}", "--set", f"{chart}.image.tag={tag}"]


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """The one namespace that this run's operator looks after, so that it may share a cluster with other operators."""
    require("kubectl", "helm")
    name = f"im-e2e-{secrets.token_hex(3)}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, namespace="default")
    yield name
    kubectl("delete", "namespace", name, "--timeout=90s", timeout=100)


@pytest.fixture(scope="session")
def operator(namespace: str) -> Iterator[str]:
    """The namespace of the operator. It is uninstalled at the end; the CRD stays."""
    system = f"{namespace}-system"
    values = _values(OPERATOR, "operator") + _values(IMSERVER, "imserver")
    install_crd()
    helm(
        *("upgrade", "--install", "e2e", str(ROOT / "charts" / "imcluster"), "--namespace", system, *values),
        *("--create-namespace", "--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false"),
        *("--set", "operator.logFormat=text", "--wait", "--timeout", "120s"),
    )
    yield system
    helm("uninstall", "e2e", "--namespace", system, "--wait", "--timeout", "120s")
    kubectl("delete", "namespace", system, "--timeout=60s", timeout=70)


@pytest.fixture
def stage(operator: str, namespace: str) -> Iterator[Stage]:
    """What a test acts on; empty at its beginning, emptied at its end."""
    stage = Stage(namespace)
    yield stage
    stage.close()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Put what was measured into the table that is printed at the end."""

    def record(**measured: Any) -> None:
        _ROWS.append((request.node.name, measured))

    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """What the operator and the pods said, in the report of a test that failed."""
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.failed and isinstance(stage, Stage) and call.when == "call":
        for what in (
            ("-n", stage.namespace, "get", "imc,sts,pods", "-o", "wide"),
            ("-n", f"{stage.namespace}-system", "logs", "-l", "app.kubernetes.io/name=imcluster-operator", "--tail=60"),
            ("-n", stage.namespace, "get", "events", "--sort-by=.lastTimestamp"),
        ):
            report.sections.append((f"kubectl {' '.join(what)}", kubectl(*what)[-8000:]))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of what was measured."""
    if not _ROWS:
        return
    terminalreporter.section("e2e: what was measured")
    width = max(len(name) for name, _ in _ROWS)
    terminalreporter.write_line("".join([" " * width, *(f"{column:>15}" for column in _SHOWN)]))
    for name, measured in _ROWS:
        cells = [f"{measured.get(column, ''):>15}" for column in _SHOWN]
        terminalreporter.write_line("".join([f"{name:<{width}}", *cells]))
