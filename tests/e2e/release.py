# The operator as its chart installs it, for one namespace: installed, upgraded, asked who leads, uninstalled.
# Each is a Helm release and a namespace of its own, so that several can share a cluster.

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.stage import IMSERVER, OPERATOR, helm
from tests.support.kube import apply, get, kubectl, require

CHART = Path(__file__).resolve().parents[2] / "charts" / "imcluster"
PORT = 9600


@contextmanager
def new_namespace() -> Iterator[str]:
    """A namespace that one operator looks after, so that it may share a cluster with other operators."""
    require("kubectl", "helm")
    name = f"im-e2e-{secrets.token_hex(3)}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, namespace="default")
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--timeout=90s", timeout=100)


def _image(part: str, image: str) -> list[str]:
    repository, _, tag = image.rpartition(":")
    return ["--set", f"{part}.image.repository={repository}", "--set", f"{part}.image.tag={tag}"]


class Release:
    """An operator that looks after one namespace, from a namespace of its own (`system`)."""

    def __init__(self, namespace: str) -> None:
        self.namespace, self.system = namespace, f"{namespace}-system"

    def upgrade(self, chart: Path = CHART, *, imserver: str = IMSERVER, replicas: int = 1) -> None:
        """Install it, or bring it to this chart, this default image of ImClusters and so many replicas."""
        helm(
            *("upgrade", "--install", "e2e", str(chart), "--namespace", self.system, "--create-namespace"),
            *_image("operator", OPERATOR),
            *_image("imserver", imserver),
            *("--set", f"watchNamespaces={{{self.namespace}}}", "--set", "crds.install=false"),
            *("--set", f"operator.logFormat=text,replicas={replicas}", "--wait", "--timeout", "120s"),
        )

    def uninstall(self) -> None:
        """Remove it as a user does; nothing happens when it is not there."""
        helm("uninstall", "e2e", "--namespace", self.system, "--ignore-not-found", "--wait", "--timeout", "120s")

    def remove(self) -> None:
        """Uninstall it and remove its namespace."""
        self.uninstall()
        kubectl("delete", "namespace", self.system, "--ignore-not-found", "--timeout=60s", timeout=70)

    def chart(self) -> str:
        """Name and version of the chart that is installed, as its Deployment tells."""
        label: str = get("deployment", "e2e-operator", namespace=self.system)["metadata"]["labels"]["helm.sh/chart"]
        return label

    def pods(self) -> list[str]:
        """The operator's pods that run."""
        found = get("pods", "-l", "app.kubernetes.io/name=imcluster-operator", namespace=self.system)["items"]
        return [p["metadata"]["name"] for p in found if not p["metadata"].get("deletionTimestamp")]

    def metric(self, pod: str, name: str) -> float:
        """The value of a metric of one pod, by the API server's proxy; 0 while the pod does not answer."""
        path = f"/api/v1/namespaces/{self.system}/pods/{pod}:{PORT}/proxy/metrics"
        try:
            text = kubectl("get", "--raw", path, timeout=20)
        except AssertionError:
            return 0.0
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def leaders(self) -> list[str]:
        """The pods that say they lead; never more than one."""
        leading = [pod for pod in self.pods() if self.metric(pod, "imoperator_leader") == 1]
        assert len(leading) <= 1, f"{leading} say that they lead"
        return leading

    def delete(self, pod: str) -> None:
        """Delete a pod of the operator in order; its Deployment makes another."""
        kubectl("-n", self.system, "delete", "pod", pod, "--wait=false")

    def crash(self, pod: str) -> None:
        """kill -9 of the operator in a pod, which is then removed by force: it gives nothing back."""
        code = "import os,pathlib;[os.kill(int(p.name),9) for p in pathlib.Path('/proc').iterdir() if p.name.isdigit()"
        code += " and b'imoperator' in (p/'cmdline').read_bytes() and int(p.name)!=os.getpid()]"
        kubectl("-n", self.system, "exec", pod, "--", "/app/bin/python", "-c", code)
        kubectl("-n", self.system, "delete", "pod", pod, "--force", "--grace-period=0")
