# The children of an ImCluster as manifests: what contract and design promise of them, and how drift is seen.

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from imhelper.errors import SettingError
from imoperator.access import qualified
from imoperator.children import children, covers, drifted, normal
from imoperator.model import Cluster, Defaults, Pod, Ref, Seen
from imoperator.names import APPLIED, Key
from imoperator.observe import read_cluster, read_pod, read_seen
from imoperator.routes import reach, server_url
from imoperator.settings import load_settings
from imoperator.spec import parse_spec
from imoperator.workload import digest, pod_template, references, references_of, statefulset

DEFAULTS = Defaults("imcluster/imserver:1", "IfNotPresent", ("pull",))


def cluster(**spec: Any) -> Cluster:
    return Cluster(Key("shop", "chat"), "uid-1", 3, parse_spec({"replicas": 3, "redis": {"url": "redis://r"}} | spec))


def manifests(at: Cluster, seen: Seen | None = None, before: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    work = statefulset(at, pod_template(at, DEFAULTS, {}), "spec", 3, 3)
    found = children(at, work, reach(at, seen or Seen(0.0), before))
    return {(m["kind"], m["metadata"]["name"]): m for m in found}


def test_every_child_is_owned_labelled_and_digested():
    for manifest in manifests(cluster()).values():
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "shop"
        assert metadata["ownerReferences"][0]["uid"] == "uid-1"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "imoperator"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "chat"
        assert metadata["annotations"][APPLIED]


def test_the_children_of_the_simplest_cluster():
    assert set(manifests(cluster())) == {
        ("ServiceAccount", "chat"),
        ("PodDisruptionBudget", "chat"),
        ("Service", "chat-pods"),
        ("Service", "chat"),
        ("StatefulSet", "chat"),
    }


def test_what_never_changes_of_a_statefulset():
    spec = manifests(cluster())["StatefulSet", "chat"]["spec"]
    labels = {"app.kubernetes.io/name": "imserver", "app.kubernetes.io/instance": "chat"}
    assert spec["selector"] == {"matchLabels": labels}
    assert (spec["serviceName"], spec["podManagementPolicy"]) == ("chat-pods", "Parallel")
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}


def test_a_pod_is_restricted_and_told_where_redis_is():
    redis = {
        "urlFrom": {"secretKeyRef": {"name": "where", "key": "url"}},
        "username": "im",
        "passwordFrom": {"secretKeyRef": {"name": "secret", "key": "pw"}},
        "tls": {
            "caFrom": {"secretKeyRef": {"name": "ca", "key": "root.pem"}},
            "certFrom": {"secretRef": {"name": "cert"}},
        },
    }
    at = cluster(redis=redis, drain={"timeoutSeconds": 60, "socketsPerSecond": 1000000})
    pod = pod_template(at, DEFAULTS, {})["spec"]
    (container,) = pod["containers"]
    env = {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}
    assert env["IM_REDIS_URL"] == {"secretKeyRef": {"name": "where", "key": "url"}}
    assert env["IM_REDIS_PASSWORD_FILE"] == "/etc/imcluster/redis/password"
    assert (env["IM_TOPOLOGY"], env["IM_DRAIN_RATE"]) == ("operator", "1000000")
    assert pod["terminationGracePeriodSeconds"] == 90
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    sources = pod["volumes"][0]["projected"]["sources"]
    assert [s["secret"]["name"] for s in sources] == ["secret", "ca", "cert"]
    assert "subPath" not in str(pod), "a subPath would never be renewed"
    assert "pw" not in str(env)


def test_the_environment_is_what_imserver_reads():
    env = pod_template(cluster(), DEFAULTS, {})["spec"]["containers"][0]["env"]
    values = {e["name"]: e["value"] for e in env if "value" in e}
    from imserver.settings import load_settings as load
    from imserver.settings import unknown_settings

    settings = load(values | {"IM_SERVER_NAME": "chat-0"})
    assert unknown_settings(values) == []
    assert (settings.topology, settings.prefix, settings.log_format) == ("operator", "im", "json")


def test_references_that_pods_read_only_at_their_start_change_the_template():
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "C", "value": "plain"},
    ]
    at = cluster(podTemplate={"env": env})
    refs = references(at.spec)
    assert refs == [Ref("ConfigMap", "c", "k"), Ref("Secret", "s", "k")]
    one, two = (digest(pod_template(at, DEFAULTS, dict.fromkeys(refs, value))) for value in ("x", "y"))
    assert one != two
    mounted = cluster(redis={"url": "redis://r", "passwordFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    assert references(mounted.spec) == [], "what is mounted is renewed without a roll-out"


def test_a_missing_reference_changes_nothing_for_servers_that_run():
    secret = {"name": "s", "key": "k"}
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": secret}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}},
    ]
    at = cluster(podTemplate={"env": env})
    needed, optional = Ref("Secret", "s", "k"), Ref("ConfigMap", "c", "k")
    before = pod_template(at, DEFAULTS, {needed: "x", optional: "x"})
    kept = references_of(statefulset(at, before, "spec", 3, 3))
    assert kept and pod_template(at, DEFAULTS, {optional: "x"}, kept) == before
    assert pod_template(at, DEFAULTS, {}, kept) == before
    assert pod_template(at, DEFAULTS, {needed: "x", optional: "x"}, kept) == before, "it is back as it was"
    assert pod_template(at, DEFAULTS, {needed: "y", optional: "x"}, kept) != before
    assert pod_template(at, DEFAULTS, {needed: "x"}, kept) != before, "to do without is a value, too"
    assert references_of(None) == references_of(statefulset(at, pod_template(at, DEFAULTS, {}), "spec", 3, 3)) == ""


def test_user_and_group_may_be_the_platforms():
    fixed = pod_template(cluster(), DEFAULTS, {})["spec"]["securityContext"]
    assert {fixed[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
    open_ = pod_template(cluster(), replace(DEFAULTS, run_as_user=None), {})["spec"]["securityContext"]
    assert open_ == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_scaling_does_not_change_the_template():
    template = pod_template(cluster(), DEFAULTS, {})
    assert digest(template) == digest(pod_template(cluster(replicas=9), DEFAULTS, {}))
    assert digest(template) != digest(pod_template(cluster(server={"pingSeconds": 9}), DEFAULTS, {}))


PER_POD = {"type": "PerPodPath", "host": "chat.example.org", "maxOrdinals": 4, "ingressClassName": "nginx"}


def test_per_pod_path_is_written_for_all_ordinals_at_once():
    found = manifests(cluster(exposure=PER_POD))
    names = [name for kind, name in found if kind == "Service"]
    assert names == ["chat-pods", "chat", "chat-0", "chat-1", "chat-2", "chat-3", "chat-4"]
    rule = found["Ingress", "chat"]["spec"]["rules"][0]
    assert [p["path"] for p in rule["http"]["paths"]] == [f"/shop/chat/{i}" for i in range(5)]
    assert found["Service", "chat-2"]["spec"]["publishNotReadyAddresses"] is True
    scaled = manifests(cluster(replicas=1, exposure=PER_POD))
    assert scaled["Ingress", "chat"] == found["Ingress", "chat"]


@pytest.mark.parametrize("kind", ["Service", "HTTPRoute"])
def test_fewer_ordinals_take_no_way_from_pods_that_are_still_there(kind):
    """Pods 2 and 3 still hold clients when maxOrdinals falls from 4 to 2: nothing changes until both are gone."""
    gateway = {"gateway": {"parentRefs": [{"name": "g"}]}} if kind == "HTTPRoute" else {}
    before, at = (cluster(replicas=2, exposure=PER_POD | gateway | {"maxOrdinals": n}) for n in (4, 2))
    pods = tuple(Pod(f"chat-{i}", i, f"u{i}", "r", 0.0, ready=True) for i in range(4))

    def ways(seen: Seen, known: int) -> dict[tuple[str, str], Any]:
        found = manifests(at, seen, known)
        return {k: m["spec"] for k, m in found.items() if k[0] in (kind, "Ingress")}

    old = {k: m["spec"] for k, m in manifests(before).items() if k[0] in (kind, "Ingress")}
    known = reach(before, Seen(0.0, pods), 0)
    assert ways(Seen(0.0, pods), known) == old
    assert ways(Seen(0.0, pods[:4:3]), known) == old, "the Ingress is written once, not for each pod that goes"
    assert (kind, "chat-3") in ways(Seen(0.0, pods), 0), "an operator that begins keeps the pods' own ways"
    assert (kind, "chat-3") not in ways(Seen(0.0, pods[:3]), known)


def test_a_gateway_gets_one_route_a_pod_and_no_ingress():
    exposure = {"type": "PerPodPath", "host": "h.example", "maxOrdinals": 2, "gateway": {"parentRefs": [{"name": "g"}]}}
    found = manifests(cluster(exposure=exposure))
    assert [name for kind, name in found if kind == "HTTPRoute"] == ["chat-0", "chat-1", "chat-2"]
    assert not [kind for kind, _ in found if kind == "Ingress"]


def test_the_client_service_leaves_draining_pods_out():
    assert manifests(cluster())["Service", "chat"]["spec"]["selector"]["imcluster.io/serving"] == "true"


@pytest.mark.parametrize(
    ("exposure", "url"),
    [
        ({}, "ws://chat-1.chat-pods.shop.svc:6001/ws"),
        ({"type": "Shared", "host": "h.example"}, "wss://h.example/ws"),
        ({"type": "Shared", "host": "h.example", "path": "/im", "tls": {"enabled": False}}, "ws://h.example/im/ws"),
        ({"type": "Shared", "urlTemplate": "ws://localhost:6001/ws"}, "ws://localhost:6001/ws"),
        ({"type": "PerPodPath", "host": "h.example"}, "wss://h.example/shop/chat/1/ws"),
        ({"type": "PerPodPath", "host": "h.example", "path": "/p"}, "wss://h.example/p/1/ws"),
        ({"type": "PerPodPath", "host": "h", "urlTemplate": "ws://{host}:{nodePort}/ws"}, "ws://h:30001/ws"),
        ({"urlTemplate": "ws://{pod}.{name}.{namespace}.x:{ordinal}/ws"}, "ws://chat-1.chat.shop.x:1/ws"),
    ],
)
def test_urls(exposure, url):
    assert server_url(cluster(exposure=exposure), 1, {"chat-1": 30001}) == url


def test_a_url_waits_for_its_node_port():
    exposure = {"type": "PerPodPath", "host": "h", "urlTemplate": "ws://{host}:{nodePort}/ws"}
    assert server_url(cluster(exposure=exposure), 1, {}) is None


def test_drift_is_what_was_taken_away_or_changed_and_not_what_others_added():
    wanted = manifests(cluster())["Service", "chat"]
    live = copy.deepcopy(wanted)
    live["spec"] |= {"clusterIP": "10.0.0.1", "sessionAffinity": "None"}
    live["metadata"]["labels"]["theirs"] = "x"
    assert not drifted(live, wanted)
    assert drifted(None, wanted)
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda m: m["spec"]["ports"].append({"port": 1}),
        lambda m: m["spec"]["selector"].pop("imcluster.io/serving"),
        lambda m: m["metadata"]["annotations"].update({APPLIED: "other"}),
        lambda m: m["metadata"].pop("ownerReferences"),
    ]
    for change in changes:
        edited = copy.deepcopy(live)
        change(edited)
        assert drifted(edited, wanted)
    assert covers({}, {"empty": "", "none": [], "nothing": {}}), "the API server leaves empty values away"


def test_what_the_api_server_writes_in_its_own_way_is_no_drift():
    at = cluster(podTemplate={"resources": {"requests": {"cpu": 0.5}}})
    wanted = manifests(at)["StatefulSet", "chat"]
    live = copy.deepcopy(wanted)
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "500m"
    assert drifted(live, wanted)
    applied = normal(wanted, live)
    assert not drifted(live, wanted, applied)
    edited = copy.deepcopy(live)
    edited["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1"
    assert drifted(edited, wanted, applied)


def test_a_pod_says_why_it_does_not_run():
    base = {"metadata": {"name": "chat-0", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}
    ended = waiting | {"lastState": {"terminated": {"exitCode": 2, "message": "IM_SLOTS must be 128\n"}}}
    found = read_pod("chat", base | {"status": {"containerStatuses": [ended]}})
    assert found is not None
    assert found.trouble == "CrashLoopBackOff: back-off: it ended with 2: IM_SLOTS must be 128"
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    found = read_pod("chat", base | {"status": {"conditions": [unscheduled]}})
    assert found is not None and found.trouble == "Unschedulable: no node"
    assert read_pod("chat", {"metadata": {"name": "chat-x-0"}}) is None


def test_what_the_api_shows_is_read():
    service = {"kind": "Service", "metadata": {"name": "chat-0"}, "spec": {"ports": [{"nodePort": 31000}]}}
    sts = {
        "metadata": {"name": "chat", "generation": 4, "annotations": {"imcluster.io/template": "t"}},
        "spec": {"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
        "status": {"observedGeneration": 3, "currentRevision": "a", "updateRevision": "b"},
    }
    seen = read_seen(Key("shop", "chat"), 1.0, [], {("Service", "chat-0"): service, ("StatefulSet", "chat"): sts})
    assert seen.node_ports == {"chat-0": 31000}
    assert seen.workload is not None and not seen.workload.current and seen.workload.partition == 1
    manifest = {
        "metadata": {
            "namespace": "shop",
            "name": "chat",
            "uid": "u",
            "deletionTimestamp": "1970-01-01T00:01:00Z",
            "finalizers": ["imcluster.io/redis-keys"],
            "annotations": {"imcluster.io/adopt-prefix": "true"},
        },
        "spec": {"redis": {"url": "redis://r"}},
    }
    found = read_cluster(manifest)
    assert (found.deleting_at, found.has_finalizer, found.adopt) == (60.0, True, True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://valkey:6379/0", "redis://valkey.shop.svc:6379/0"),
        ("redis://valkey", "redis://valkey.shop.svc"),
        ("rediss://user@valkey:1", "rediss://user@valkey.shop.svc:1"),
        ("redis+sentinel://a:1,b.other:2/mymaster", "redis+sentinel://a.shop.svc:1,b.other:2/mymaster"),
        ("redis://10.0.0.1:6379", "redis://10.0.0.1:6379"),
        ("redis://[fd00::1]:6379", "redis://[fd00::1]:6379"),
        ("redis://localhost:1", "redis://localhost:1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_short_host_is_a_service_of_the_clusters_namespace(url, expected):
    assert qualified(url, "shop") == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("IMOPERATOR_PORT", "0"),
        ("IMOPERATOR_PORT", "x"),
        ("IMOPERATOR_IMAGE", "a b"),
        ("IMOPERATOR_WATCH_NAMESPACES", "Shop"),
        ("IMOPERATOR_RESYNC_SECONDS", "0"),
        ("IMOPERATOR_LOG_LEVEL", "loud"),
        ("IMOPERATOR_NAMESPACE", "a,b"),
        ("IMOPERATOR_RUN_AS_USER", "0"),
        ("IMOPERATOR_RUN_AS_USER", "root"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(variable, value):
    with pytest.raises(SettingError, match=f"^{variable} must be .*, not '{value}'$"):
        load_settings({variable: value})


def test_settings_are_read():
    found = load_settings({"IMOPERATOR_WATCH_NAMESPACES": "a, b", "IMOPERATOR_IMAGE": "x:1", "IMOPERATOR_PORT": ""})
    assert (found.watch_namespaces, found.defaults.image, found.port) == (("a", "b"), "x:1", 9600)
    assert found.identity
