# The chart grants the operator exactly what it uses: every call of its code is made once against a recorder, and what
# was asked for is compared with the rendered rules, rule by rule.

import asyncio
import inspect
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube import AsyncClient
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as ModelCluster
from lightkube.config.models import Context, User

from imoperator.api import Api
from imoperator.leader import Elector
from imoperator.model import Cluster, Ref
from imoperator.names import FINALIZER, PLURAL, Key
from imoperator.spec import parse_spec
from imoperator.watch import CHILDREN
from tests.support.kube import run

CHART = Path(__file__).resolve().parents[2] / "charts" / "imcluster"
Use = tuple[str, str, str]
KEY = Key("ns", "chat")
KINDS = {
    "ServiceAccount": "v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "StatefulSet": "apps/v1",
    "Ingress": "networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
}


class Recorder:
    """Answers like an API server that has whatever is asked for, and notes what RBAC would have been asked."""

    def __init__(self) -> None:
        self.used: set[Use] = set()
        self.absent = False

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        parts = request.url.path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if rest[0] == "namespaces":
            rest = rest[2:]
        resource, named = rest[0], len(rest) > 1
        if len(rest) > 2:
            resource = f"{resource}/{rest[2]}"
        verb = {"GET": "get" if named else "list", "POST": "create", "PUT": "update", "DELETE": "delete"}.get(
            request.method, "patch"
        )
        self.used.add((group, resource, verb))
        if request.headers.get("content-type", "").startswith("application/apply-patch"):
            # Applying what is not there yet asks for creating, too.
            self.used.add((group, resource, "create"))
        if verb == "get" and self.absent:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "message": "not found"}
            return httpx2.Response(404, json=status)
        metadata = {"name": "chat", "namespace": "ns", "uid": "uid", "resourceVersion": "1", "finalizers": [FINALIZER]}
        item: dict[str, Any] = {"metadata": metadata, "data": {"k": "eA=="}, "involvedObject": {}}
        item["spec"] = {"selector": {}, "serviceName": "x", "template": {}, "containers": []}
        return httpx2.Response(200, json=item if named or verb == "create" else {"items": [], "metadata": {}})


async def _everything(recorder: Recorder) -> None:
    server = ModelCluster(server="http://recorder")
    config = SingleConfig(context_name="x", context=Context(cluster="x"), cluster=server, user=User(token="x"))
    client = AsyncClient(config=config, transport=httpx2.MockTransport(recorder), field_manager="x")
    api = Api(client)
    cluster = Cluster(KEY, "uid", 1, parse_spec({"redis": {"url": "redis://r"}}))
    metadata = {"name": "x", "namespace": "ns"}
    calls: dict[str, list[Any]] = {
        "clusters": [api.clusters([])],
        "cluster": [api.cluster(KEY)],
        "write_status": [api.write_status(cluster, {})],
        "set_finalizer": [api.set_finalizer(KEY, "uid", False)],
        "tell": [api.tell(cluster, "Reason", "message", warning=True)],
        "children": [api.children(KEY, routes=True)],
        "child": [api.child(kind, KEY, "x") for kind in KINDS],
        "apply": [api.apply({"apiVersion": v, "kind": k, "metadata": metadata}) for k, v in KINDS.items()],
        "remove": [api.remove(kind, KEY, "x") for kind in KINDS if api.prunable(kind) or kind == "StatefulSet"],
        "pods": [api.pods(KEY, {})],
        "mark_pod": [api.mark_pod(KEY, "x", "uid", {})],
        "delete_pod": [api.delete_pod(KEY, "x", "uid")],
        "value": [api.value("ns", Ref(kind, "x", "k")) for kind in ("Secret", "ConfigMap")],
    }
    methods = {name for name, _ in inspect.getmembers(Api, inspect.iscoroutinefunction) if not name.startswith("_")}
    assert set(calls) == methods, "a new way to the API belongs into this test"
    for made in calls.values():
        await asyncio.gather(*made)
    elector = Elector(client, "ns", "lease", "me")
    await elector.seize(1)
    recorder.absent = True
    await elector._try()
    await client.close()


@pytest.fixture(scope="module")
def used() -> set[Use]:
    recorder = Recorder()
    asyncio.run(_everything(recorder))
    for *group, _, plural in (("imcluster.io", "v1", PLURAL), *CHILDREN):
        recorder.used |= {(group[0] if group else "", plural, verb) for verb in ("list", "watch")}
    return recorder.used


def _rendered(*values: str) -> list[dict[str, Any]]:
    if shutil.which("helm") is None:
        pytest.skip("no helm on this machine")
    text = run("helm", "template", "im", str(CHART), "--namespace", "sys", *values)
    return [m for m in yaml.safe_load_all(text) if m]


def _granted(manifests: list[dict[str, Any]], kind: str) -> set[Use]:
    operators = {b["roleRef"]["name"] for b in manifests if b["kind"] == f"{kind}Binding"}
    rules = [r for m in manifests if m["kind"] == kind and m["metadata"]["name"] in operators for r in m["rules"]]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def test_cluster_wide(used):
    manifests = _rendered()
    granted = _granted(manifests, "ClusterRole") | _granted(manifests, "Role")
    assert granted - used == set(), "granted and not used"
    assert used - granted == set(), "used and not granted"


def test_one_namespace_gets_the_same_and_nothing_cluster_wide(used):
    manifests = _rendered("--set", "watchNamespaces={shop}")
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "ClusterRoleBinding"] == []
    assert _granted(manifests, "Role") == used
    namespaces = {m["metadata"]["namespace"] for m in manifests if m["kind"] == "RoleBinding"}
    assert namespaces == {"shop", "sys"}


def test_nothing_is_granted_with_a_wildcard_or_beyond_the_lease_that_is_meant():
    manifests = _rendered()
    assert not any("*" in use for kind in ("Role", "ClusterRole") for use in _granted(manifests, kind))
    (leases,) = [m for m in manifests if m["kind"] == "Role"]
    assert leases["rules"][0]["resourceNames"] == ["im-operator"]
