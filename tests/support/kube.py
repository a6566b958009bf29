# kubectl and helm as tests use them: each call has a limit, and what failed is shown with what it said.
# Which cluster: KUBECONFIG. Without one, or without the programs, the tests that need them are skipped.

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

CRD = "imclusters.imcluster.io"


def require(*programs: str, cluster: bool = True) -> None:
    """Skip the test, with the reason, where a program is missing or no cluster answers."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine")
    if cluster:
        if not os.environ.get("KUBECONFIG"):
            pytest.skip("KUBECONFIG names no cluster")
        done = _run(["kubectl", "get", "--raw", "/readyz"], None, 20)
        if done.returncode != 0:
            pytest.skip(f"the cluster does not answer: {done.stderr.strip()[-200:]}")


def _run(command: list[str], text: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run(*command: str, text: str | None = None, timeout: float = 60) -> str:
    """Run a program, give it `text`, and answer what it printed. AssertionError with both outputs when it fails."""
    done = _run(list(command), text, timeout)
    assert done.returncode == 0, f"{' '.join(command)} said:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def refused(*command: str, text: str | None = None, timeout: float = 60) -> str:
    """Run a program that must fail and answer what it said."""
    done = _run(list(command), text, timeout)
    assert done.returncode != 0, f"{' '.join(command)} was accepted:\n{done.stdout[-2000:]}"
    return done.stdout + done.stderr


def kubectl(*arguments: str, text: str | None = None, timeout: float = 60) -> str:
    """Run kubectl."""
    return run("kubectl", *arguments, text=text, timeout=timeout)


def apply(*manifests: dict[str, Any], namespace: str) -> None:
    """kubectl apply of some manifests."""
    listing = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    kubectl("apply", "-n", namespace, "-f", "-", text=json.dumps(listing))


def get(kind: str, *names: str, namespace: str | None = None) -> Any:
    """Objects as kubectl shows them in JSON."""
    where = ["-n", namespace] if namespace else []
    return json.loads(kubectl("get", kind, *names, *where, "-o", "json"))


@cache
def install_crd() -> None:
    """Bring this checkout's CRD, whatever brought an earlier one, and wait until the API server serves it.

    What needs it asks for it, so that tests run in any order on a fresh cluster; done once in a test run.
    """
    text = run(sys.executable, "-m", "imoperator", "crd")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
    kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
    # Clients that ask what there is get the new kind a moment later.
    kubectl("get", "imclusters", "--namespace", "default")
