# What the charts render is taken by a real API server: a server-side dry run, in a namespace that enforces the
# restricted level of Pod Security. And Helm's whole life works: install an older chart, upgrade, test, uninstall.

import json
import os
import secrets
import shutil
from collections.abc import Iterator

import pytest
import yaml

from tests.chart.charts import CASES, CHARTS, DEMO, MAIN, RELEASE, Object, objects
from tests.support.kube import CRD, get, install_crd, kubectl, refused, require, run

RESTRICTED = "pod-security.kubernetes.io"
OPERATOR = os.environ.get("IM_E2E_OPERATOR", "localhost/operator:dev")


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that takes restricted pods only and warns about templates of others."""
    require("kubectl", "helm")
    install_crd()
    name = f"chart-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, f"{RESTRICTED}/enforce=restricted", f"{RESTRICTED}/warn=restricted")
    # A pod is refused while its account is not there, and a dry run makes none.
    kubectl("create", "serviceaccount", f"{RELEASE}-operator", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--timeout=90s", timeout=100)


def _known_groups() -> set[str]:
    return {line.partition("/")[0] if "/" in line else "" for line in kubectl("api-versions").split()}


def _placed(one: Object, namespace: str) -> Object:
    if "namespace" not in one["metadata"]:
        return one
    return one | {"metadata": one["metadata"] | {"namespace": namespace}}


def _dry_run(manifests: list[Object], namespace: str) -> str:
    listing = {"apiVersion": "v1", "kind": "List", "items": [_placed(one, namespace) for one in manifests]}
    options = ["--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors", "-f", "-"]
    return kubectl("apply", *options, text=json.dumps(listing))


@pytest.mark.parametrize(("chart", "case"), CASES, ids=[f"{chart}:{case}" for chart, case in CASES])
def test_the_api_server_takes_everything(chart, case, namespace):
    known = _known_groups()
    wanted = objects(chart, case)
    found = [o for o in wanted if "/" not in o["apiVersion"] or o["apiVersion"].partition("/")[0] in known]
    left_out = {o["apiVersion"] for o in wanted} - {o["apiVersion"] for o in found}
    assert left_out <= {"monitoring.coreos.com/v1"}
    answered = _dry_run(found, namespace).splitlines()
    names = {(o["kind"], o["metadata"]["name"]) for o in found}
    assert len(answered) >= len(names)
    assert all("(server dry run)" in line for line in answered)


def test_the_dry_run_would_tell_of_pods_that_are_not_restricted(namespace):
    pod = {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]}
    deployment = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
    }
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": deployment}
    options = ["--server-side", "--dry-run=server", "--warnings-as-errors", "-n", namespace, "-f", "-"]
    assert "would violate PodSecurity" in refused("kubectl", "apply", *options, text=json.dumps(manifest))


def test_a_bad_spec_in_the_demos_values_is_refused_with_a_sentence(namespace):
    manifests = [o for o in objects(DEMO, None, "--set", "imcluster.spec.slots=100") if o["kind"] == "ImCluster"]
    text = json.dumps(_placed(manifests[0], namespace))
    assert "must be a power of two" in refused("kubectl", "create", "--dry-run=server", "-f", "-", text=text)


@pytest.mark.timeout(300)
def test_helms_whole_life(namespace, tmp_path):
    """For one namespace, so that another operator of the cluster is not disturbed."""
    image = {o["names"][0] for o in get("nodes")["items"][0]["status"]["images"] if o.get("names")}
    if OPERATOR not in image:
        pytest.skip(f"the image {OPERATOR} is not on the node")
    older = tmp_path / MAIN
    shutil.copytree(CHARTS / MAIN, older)
    head = yaml.safe_load((older / "Chart.yaml").read_text()) | {"version": "0.0.9"}
    (older / "Chart.yaml").write_text(yaml.safe_dump(head))
    repository, _, tag = OPERATOR.rpartition(":")
    options = ["--namespace", namespace, "--set", f"operator.image.repository={repository},operator.image.tag={tag}"]
    options += ["--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false", "--wait", "--timeout=150s"]

    def deployed() -> str:
        (one,) = json.loads(run("helm", "list", "--namespace", namespace, "--output", "json"))
        return f"{one['chart']} {one['status']}"

    run("helm", "install", "life", str(older), *options, timeout=170)
    assert deployed() == "imcluster-0.0.9 deployed"
    run("helm", "upgrade", "life", str(CHARTS / MAIN), *options, "--set", "replicas=2", timeout=170)
    assert deployed().endswith(" deployed") and "0.0.9" not in deployed()
    tested = run("helm", "test", "life", "--namespace", namespace, "--timeout=120s", "--logs", timeout=130)
    assert "leads" in tested
    run("helm", "uninstall", "life", "--namespace", namespace, "--wait", "--timeout=120s", timeout=130)
    left = [k for k in ("deployment", "role", "rolebinding", "job", "pod") if get(k, namespace=namespace)["items"]]
    # The pods may take their time to end; nothing else may be left.
    assert set(left) <= {"pod"}
    assert CRD in kubectl("get", "crd", "-o", "name")


@pytest.mark.timeout(150)
def test_an_upgrade_keeps_what_kubectl_scale_has_set(namespace):
    """Redis can't be reached, so that no operator of the cluster starts any server."""
    parts = "valkey.enabled=false,webchat.enabled=false,imcluster.spec.redis.url=redis://127.0.0.1:1"
    command = ["helm", "upgrade", "--install", "kept", str(CHARTS / DEMO), "--namespace", namespace, "--set", parts]

    def spec() -> Object:
        found: Object = get("imcluster", "kept", namespace=namespace)["spec"]
        return found

    run(*command, "--set", "imcluster.spec.replicas=2")
    kubectl("scale", "imc/kept", "--replicas=4", "-n", namespace)
    run(*command, "--set", "imcluster.spec.replicas=2,imcluster.spec.server.graceSeconds=12")
    assert (spec()["replicas"], spec()["server"]["graceSeconds"]) == (4, 12)
    run(*command, "--set", "imcluster.spec.replicas=1", "--force-conflicts")
    assert spec()["replicas"] == 1
    run("helm", "uninstall", "kept", "--namespace", namespace, "--wait", "--timeout=90s", timeout=100)
