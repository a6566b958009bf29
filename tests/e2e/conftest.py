# The operator, installed once by its chart; a stage that each test finds empty; the table of what was measured.
# Images must be in the cluster already: see docs/install.md, "Images".

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.release import Release, new_namespace
from tests.e2e.stage import Stage
from tests.support.kube import install_crd, kubectl

_ROWS: list[tuple[str, dict[str, Any]]] = []
_SHOWN = ("lost", "duplicates", "disorder", "gaps", "most_moves", "highest_share", "longest_away", "seconds")

Record = Callable[..., None]


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """The operator of most tests. It is uninstalled at the end; the CRD stays."""
    with new_namespace() as namespace:
        release = Release(namespace)
        install_crd()
        release.upgrade()
        yield release
        release.remove()


@pytest.fixture
def stage(release: Release) -> Iterator[Stage]:
    """What a test acts on; empty at its beginning, emptied at its end."""
    stage = Stage(release.namespace)
    yield stage
    stage.close()


@pytest.fixture
def running(stage: Stage) -> Stage:
    """Two servers that are ready, and a pod from which Redis can be asked."""
    stage.valkey()
    stage.tools()
    stage.imcluster(replicas=2)
    stage.ready()
    return stage


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
