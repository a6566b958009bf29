# Renders the charts with the real helm, once for each set of values, for the tests of this folder.
# Objects are plain dictionaries; a pod template is found wherever it may stand.

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
MAIN, DEMO = "imcluster", "imcluster-demo"
RELEASE, NAMESPACE = "trial", "im-system"
CASES = [(chart, path.stem) for chart in (MAIN, DEMO) for path in sorted((CHARTS / chart / "ci").glob("*-values.yaml"))]

Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; the test is skipped where there is none."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=50, check=False)


def values_file(chart: str, case: str) -> Path:
    """A file of ci/."""
    return CHARTS / chart / "ci" / f"{case}.yaml"


@cache
def _template(chart: str, *options: str) -> str:
    done = helm("template", RELEASE, str(CHARTS / chart), "--namespace", NAMESPACE, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def template(chart: str, case: str | None = None, *options: str) -> str:
    """What `helm template` writes, with the values of ci/CASE.yaml and further options."""
    given = ["--values", str(values_file(chart, case))] if case else []
    return _template(chart, *given, *options)


def objects(chart: str, case: str | None = None, *options: str) -> list[Object]:
    """The rendered objects."""
    return [o for o in yaml.load_all(template(chart, case, *options), yaml.CSafeLoader) if o]


def refusal(chart: str, *options: str) -> str:
    """What helm says when it refuses these values."""
    done = helm("template", RELEASE, str(CHARTS / chart), "--namespace", NAMESPACE, *options)
    assert done.returncode != 0, f"{options} were taken"
    return done.stderr


def of_kind(found: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [o for o in found if o["kind"] == kind]


def named(found: list[Object], kind: str, name: str) -> Object:
    """The one of that kind and name."""
    (one,) = [o for o in of_kind(found, kind) if o["metadata"]["name"] == name]
    return one


def pod_specs(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """The pod specs of Pods, Deployments and Jobs, each with a name for messages."""
    for one in found:
        where = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield where, one["spec"]
        elif one["kind"] in ("Deployment", "Job", "StatefulSet"):
            yield where, one["spec"]["template"]["spec"]
