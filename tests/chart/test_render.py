# The rendered manifests: as they were agreed on (golden files), and what must hold for them whatever the values are.
# UPDATE_GOLDEN=1 writes the golden files anew; read the difference before you commit it.

import os
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from examples.webchat import settings
from imoperator.settings import PREFIX, Settings, load_settings
from tests.chart.charts import (
    CASES,
    CHARTS,
    DEMO,
    MAIN,
    NAMESPACE,
    Object,
    helm,
    named,
    objects,
    of_kind,
    pod_specs,
    template,
    values_file,
)

GOLDEN = Path(__file__).parent / "golden"
CLUSTER_WIDE = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}

every_case = pytest.mark.parametrize(("chart", "case"), CASES, ids=[f"{chart}:{case}" for chart, case in CASES])


def _without_crd(chart: str) -> list[str]:
    """The CRD is generated and held to its source by a test of its own."""
    return ["--set", "crds.install=false"] if chart == MAIN else []


@every_case
def test_manifests_are_as_agreed_on(chart, case):
    options = _without_crd(chart)
    if case == "everything-values":
        options = []
    found = [o for o in objects(chart, case, *options) if o["kind"] != "CustomResourceDefinition"]
    for one in of_kind(found, "ConfigMap"):
        one["data"] = {name: "…" for name in one["data"]}
    text = yaml.safe_dump_all(found, sort_keys=True, width=120, allow_unicode=True)
    path = GOLDEN / f"{chart}-{case.removesuffix('-values')}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), "UPDATE_GOLDEN=1 takes the new manifests over"


@every_case
def test_helm_lint_is_strictly_clean(chart, case):
    done = helm("lint", "--strict", "--values", str(values_file(chart, case)), str(CHARTS / chart))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout


@every_case
def test_every_pod_is_restricted_and_bounded(chart, case):
    for where, spec in pod_specs(objects(chart, case)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert isinstance(security["runAsUser"], int) and security["runAsUser"] > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert spec.get("enableServiceLinks") is False, where
        for container in spec["containers"]:
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] is True, where
            assert inner["allowPrivilegeEscalation"] is False, where
            assert inner["capabilities"] == {"drop": ["ALL"]}, where
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, where
            assert "memory" in container["resources"]["limits"], where
            assert not container["image"].endswith(":latest"), where


@every_case
def test_only_who_talks_to_the_api_gets_a_token(chart, case):
    for where, spec in pod_specs(objects(chart, case)):
        has_account = "serviceAccountName" in spec
        assert has_account or spec["automountServiceAccountToken"] is False, where
        assert has_account == (chart == MAIN), where


@every_case
def test_objects_are_labelled_and_placed(chart, case):
    for one in objects(chart, case):
        where = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "CustomResourceDefinition":
            continue
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "trial", where
        assert labels["app.kubernetes.io/managed-by"] == "Helm", where
        assert labels["helm.sh/chart"].startswith(f"{chart}-"), where
        assert ("namespace" in one["metadata"]) == (one["kind"] not in CLUSTER_WIDE), where


@every_case
def test_names_are_unique(chart, case):
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects(chart, case)]
    assert len(names) == len(set(names))


@every_case
def test_selectors_find_their_pods_and_no_others(chart, case):
    found = objects(chart, case)
    pods = {o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"] for o in of_kind(found, "Deployment")}
    for one in of_kind(found, "Deployment"):
        selector = one["spec"]["selector"]["matchLabels"].items()
        assert [name for name, labels in pods.items() if selector <= labels.items()] == [one["metadata"]["name"]]
    for one in of_kind(found, "Service"):
        chosen = [name for name, labels in pods.items() if one["spec"]["selector"].items() <= labels.items()]
        assert chosen == [one["metadata"]["name"]]


# The chart of the operator.


def test_the_crd_stays_when_the_chart_is_uninstalled():
    (crd,) = of_kind(objects(MAIN), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_second_installation_adds_nothing_cluster_wide():
    found = objects(MAIN, "namespaced-values")
    assert [o["kind"] for o in found if o["kind"] in CLUSTER_WIDE] == []
    namespaces = {o["metadata"]["namespace"] for o in found}
    assert namespaces == {NAMESPACE, "chart-one", "chart-two"}


def test_without_rbac_no_role_is_made():
    kinds = {o["kind"] for o in objects(MAIN, None, "--set", "rbac.create=false")}
    assert not {k for k in kinds if "Role" in k}


def test_who_may_view_or_edit_a_namespace_may_so_with_its_imclusters():
    roles = {o["metadata"]["name"]: o for o in of_kind(objects(MAIN), "ClusterRole")}
    to = "rbac.authorization.k8s.io/aggregate-to-"
    aggregated = {
        name: {label.removeprefix(to) for label in role["metadata"]["labels"] if label.startswith(to)}
        for name, role in roles.items()
    }
    assert aggregated["imcluster-view"] == {"view", "edit", "admin"}
    assert aggregated["imcluster-edit"] == {"edit", "admin"}
    changing = {(r, v) for rule in roles["imcluster-edit"]["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert {("imclusters", "create"), ("imclusters", "delete"), ("imclusters/scale", "patch")} <= changing
    assert not any(resource == "imclusters/status" for resource, _ in changing)
    assert {v for rule in roles["imcluster-view"]["rules"] for v in rule["verbs"]} == {"get", "list", "watch"}
    left = of_kind(objects(MAIN, None, "--set", "rbac.aggregate=false"), "ClusterRole")
    assert [o["metadata"]["name"] for o in left] == [f"{NAMESPACE}-trial-operator"]


def test_monitoring_is_off_by_default():
    kinds = {o["kind"] for o in objects(MAIN)}
    assert not kinds & {"PodMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"}


def test_images_and_secrets_reach_the_operator():
    options = ["--set", "operator.image.repository=reg.example.org/op,operator.image.tag=7"]
    options += ["--set", "imserver.image.repository=reg.example.org/im,imserver.image.tag=8"]
    options += ["--set", "imagePullPolicy=Never", "--set", "imagePullSecrets={one,two}", "--set", "replicas=3"]
    deployment = named(objects(MAIN, None, *options), "Deployment", "trial-operator")
    assert deployment["spec"]["replicas"] == 3
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert (container["image"], container["imagePullPolicy"]) == ("reg.example.org/op:7", "Never")
    assert env["IMOPERATOR_IMAGE"] == "reg.example.org/im:8"
    assert env["IMOPERATOR_IMAGE_PULL_POLICY"] == "Never"
    assert env["IMOPERATOR_IMAGE_PULL_SECRETS"] == "one,two"
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_where_the_operator_may_run_its_hooks_may_run():
    options = ["--set", "nodeSelector.pool=infra,tolerations[0].key=infra,tolerations[0].operator=Exists"]
    options += ["--set", "priorityClassName=high,affinity.nodeAffinity.x=y,affinity.podAntiAffinity.x=y"]
    found = dict(pod_specs(objects(MAIN, None, *options)))
    assert set(found) == {"Deployment/trial-operator", "Job/trial-operator-release", "Pod/trial-operator-test"}
    for where, spec in found.items():
        assert spec["nodeSelector"] == {"pool": "infra"}, where
        assert spec["tolerations"] == [{"key": "infra", "operator": "Exists"}], where
        assert spec["priorityClassName"] == "high", where
        # What keeps replicas apart from each other must not keep a hook from its node.
        apart = {"podAntiAffinity": {"x": "y"}} if where.startswith("Deployment/") else {}
        assert spec["affinity"] == {"nodeAffinity": {"x": "y"}} | apart, where


@pytest.mark.parametrize(
    ("chart", "options"),
    [(MAIN, "runAsUser=null"), (DEMO, "valkey.runAsUser=null,webchat.runAsUser=null")],
    ids=[MAIN, DEMO],
)
def test_user_and_group_may_be_the_platforms(chart, options):
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    found = dict(pod_specs(objects(chart, None, "--set", options)))
    assert len(found) == 3
    assert [spec["securityContext"] for spec in found.values()] == [restricted] * 3


def test_the_operator_gives_servers_the_same_user():
    for given, wanted in (("1234", 1234), ("null", None)):
        deployment = named(objects(MAIN, None, "--set", f"runAsUser={given}"), "Deployment", "trial-operator")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        env = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        assert load_settings(env).defaults.run_as_user == wanted


def test_images_may_be_named_by_their_digest():
    digest = f"sha256:{'0a' * 32}"
    options = [f"operator.image.digest={digest},imserver.image.digest={digest},operator.image.tag=7"]
    found = dict(pod_specs(objects(MAIN, None, "--set", *options)))
    for where, spec in found.items():
        (container,) = spec["containers"]
        env = {e["name"]: e.get("value") for e in container["env"]}
        assert container["image"] == f"imcluster/operator@{digest}", where
        assert env["IMOPERATOR_IMAGE"] == f"imcluster/imserver@{digest}", where
    demo = objects(DEMO, None, "--set", f"valkey.image.digest={digest},webchat.image.digest={digest}")
    images = {c["image"] for _, spec in pod_specs(demo) for c in spec["containers"]}
    assert images == {f"valkey/valkey@{digest}", f"imcluster/webchat@{digest}"}


def test_pull_secrets_may_be_objects():
    options = ["--set", "imagePullSecrets[0].name=one", "--set", "imagePullSecrets[1].name=two"]
    assert objects(MAIN, None, *options) == objects(MAIN, None, "--set", "imagePullSecrets={one,two}")


def test_every_setting_of_the_operator_is_one_it_knows():
    known = {PREFIX + f.name.upper() for f in fields(Settings)}
    for _, spec in pod_specs(objects(MAIN)):
        assert {e["name"] for e in spec["containers"][0]["env"]} <= known


def test_the_finalizers_go_before_the_operator():
    (job,) = of_kind(objects(MAIN), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert "hook-succeeded" in job["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["release"]
    assert job["spec"]["activeDeadlineSeconds"] <= 300


@pytest.mark.parametrize("chart", [MAIN, DEMO])
def test_an_upgrade_changes_nothing_that_can_not_be_changed(chart, tmp_path):
    """An older version of the chart has the same names and selectors, so that `helm upgrade` goes through."""
    older = tmp_path / chart
    shutil.copytree(CHARTS / chart, older)
    head = yaml.safe_load((older / "Chart.yaml").read_text()) | {"version": "0.0.9", "appVersion": "0.0.9"}
    (older / "Chart.yaml").write_text(yaml.safe_dump(head))
    done = helm("template", "trial", str(older), "--namespace", NAMESPACE)
    assert done.returncode == 0, done.stderr
    before = [o for o in yaml.safe_load_all(done.stdout) if o]
    after = objects(chart)

    def fixed(found: list[Object]) -> dict[tuple[str, str], Object | None]:
        kept: dict[tuple[str, str], Object | None] = {(o["kind"], o["metadata"]["name"]): None for o in found}
        for one in of_kind(found, "Deployment"):
            kept["Deployment", one["metadata"]["name"]] = one["spec"]["selector"]
        return kept

    assert fixed(before) == fixed(after)


# The chart of the demo.


def test_the_demo_is_a_chat_for_two_port_forwards():
    found = objects(DEMO)
    spec = named(found, "ImCluster", "trial")["spec"]
    assert spec["exposure"] == {"type": "Shared", "urlTemplate": "ws://localhost:6001/ws"}
    assert spec["redis"]["url"] == "redis://trial-valkey:6379/0"
    assert {o["metadata"]["name"] for o in of_kind(found, "Service")} == {"trial-valkey", "trial-webchat"}


def test_the_spec_is_passed_on():
    options = ["--set", "imcluster.spec.replicas=5", "--set", "imcluster.spec.exposure.type=InCluster"]
    options += ["--set", "imcluster.spec.redis.prefix=chat", "--set", "imcluster.spec.server.pingSeconds=7"]
    options += ["--set", "imcluster.spec.rollout.paused=true", "--set", "imcluster.spec.image=some:tag"]
    assert named(objects(DEMO, None, *options), "ImCluster", "trial")["spec"] == {
        "replicas": 5,
        "image": "some:tag",
        "exposure": {"type": "InCluster"},
        "redis": {"prefix": "chat", "url": "redis://trial-valkey:6379/0"},
        "server": {"pingSeconds": 7},
        "rollout": {"paused": True},
    }


def test_an_autoscaler_may_own_the_replicas():
    found = objects(DEMO, None, "--set", "imcluster.spec.replicas=null")
    assert "replicas" not in named(found, "ImCluster", "trial")["spec"]


@pytest.mark.parametrize("given", ["persistence=true", "persistence.enabled=true"])
def test_a_volume_outlives_the_valkey_pod(given):
    found = objects(DEMO, None, "--set", f"valkey.{given}")
    claim = named(found, "PersistentVolumeClaim", "trial-valkey")
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    pod = named(found, "Deployment", "trial-valkey")["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "trial-valkey"}}]


@pytest.mark.parametrize("given", ["persistence=false", "persistence.enabled=false"])
def test_without_a_volume_there_is_no_claim(given):
    assert of_kind(objects(DEMO, None, "--set", f"valkey.{given}"), "PersistentVolumeClaim") == []


def test_parts_of_the_demo_can_be_left_out():
    options = [
        "--set",
        "valkey.enabled=false,webchat.enabled=false",
        "--set",
        "imcluster.spec.redis.url=redis://r:6379",
    ]
    assert [o["kind"] for o in objects(DEMO, None, *options)] == ["ImCluster"]


def test_the_imcluster_may_be_the_users_own():
    """What is left is for an ImCluster of the release's name on the chart's Valkey."""
    found = objects(DEMO, None, "--set", "imcluster.enabled=false")
    assert of_kind(found, "ImCluster") == []
    webchat = named(found, "Deployment", "trial-webchat")["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e["value"] for e in webchat["env"]}
    assert env["IM_REDIS_URL"] == "redis://trial-valkey:6379/0"
    assert [o for o in found if o["kind"] != "ImCluster"] == [o for o in objects(DEMO) if o["kind"] != "ImCluster"]


@pytest.mark.parametrize("own", ["true", "false"])
@pytest.mark.parametrize("given", ["url=redis://r:6379", "urlFrom.secretKeyRef.name=s"])
def test_only_the_charts_own_valkey_is_taken_over(own, given):
    mark = "imcluster.io/adopt-prefix"
    assert named(objects(DEMO), "ImCluster", "trial")["metadata"]["annotations"][mark] == "true"
    prefixed = objects(DEMO, None, "--set", "imcluster.spec.redis.prefix=chat")
    assert named(prefixed, "ImCluster", "trial")["metadata"]["annotations"][mark] == "true"
    # A Valkey that runs beside says nothing about whose Redis the spec names.
    other = objects(DEMO, None, "--set", f"valkey.enabled={own},imcluster.spec.redis.{given}")
    assert mark not in named(other, "ImCluster", "trial")["metadata"].get("annotations", {})


def test_the_valkey_keeps_what_it_has_accepted():
    pod = named(objects(DEMO), "Deployment", "trial-valkey")["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    settings = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert settings["--maxmemory-policy"] == "noeviction"
    assert settings["--appendonly"] == "yes"


def test_the_web_chat_knows_every_way_to_redis():
    text = Path(settings.__file__).read_text("utf-8")
    spec = named(objects(DEMO, "external-redis-values"), "Deployment", "chat-webchat")["spec"]["template"]["spec"]
    names = {e["name"] for e in spec["containers"][0]["env"]}
    assert len(names) == 9
    assert all(f'"{name}"' in text for name in names)


def test_the_rendered_text_holds_no_leftovers():
    for chart, case in CASES:
        assert "<no value>" not in template(chart, case)
        assert "%!" not in template(chart, case)
