# The life of an ImCluster on a real Kubernetes with clients connected: scaling, roll-outs, failures, its end.
# In each of them nothing that Redis accepted is lost, and nothing comes twice or out of order to a client that resumes.

import re
import time

import pytest

from tests.e2e.stage import Stage, nothing_lost, wait_for
from tests.support.kube import get, kubectl

pytestmark = pytest.mark.timeout(400)


def test_scale_2_4_2(stage, record):
    stage.valkey()
    stage.imcluster(replicas=2, drain={"socketsPerSecond": 20})
    stage.ready()
    traffic = stage.traffic(servers=2)
    began = time.monotonic()
    stage.kubectl("scale", "imc", "chat", "--replicas=4")
    stage.ready()
    assert [(s["state"], s["slots"]) for s in stage.status()["servers"]] == [("active", 32)] * 4
    traffic.again()
    spread = {f"chat-{i}": 96 for i in range(4)}
    wait_for("URLs that are spread over all servers", lambda: traffic.report()["by_server"] == spread, 60)
    before = traffic.report()["codes"]
    stage.kubectl("scale", "imc", "chat", "--replicas=2")
    seen = _sizes_and_connections(stage)
    seconds = time.monotonic() - began
    assert any(size == 4 and held[pod] for size, held in seen for pod in held), "the leaving servers held clients"
    too_early = [(size, held) for size, held in seen if any(held[f"chat-{i}"] for i in (2, 3) if i >= size)]
    assert not too_early, f"the StatefulSet shrank before its servers were empty: {seen}"
    report = traffic.settle()
    nothing_lost(report)
    assert report["clients"] == 384
    assert report["codes"] == before, "clients of leaving servers are told where to go, not cut off"
    assert [s["slots"] for s in stage.status()["servers"]] == [64, 64]
    record(**report, seconds=round(seconds))


def _sizes_and_connections(stage: Stage) -> list[tuple[int, dict[str, int | None]]]:
    """Until the StatefulSet has two replicas and their leaving pods are gone: its size, then what these pods held."""
    seen = []

    def gone() -> bool:
        size = get("sts", "chat", namespace=stage.namespace)["spec"]["replicas"]
        seen.append((size, {pod: stage.connections(pod) for pod in ("chat-2", "chat-3")}))
        return seen[-1] == (2, {"chat-2": None, "chat-3": None})

    wait_for("the leaving pods to go", gone, 120, 0.1)
    stage.ready()
    return seen


def test_rollout_of_a_setting(running, record):
    running.kubectl("scale", "imc", "chat", "--replicas=3")
    running.ready()
    traffic = running.traffic(servers=3)
    old = {p["metadata"]["uid"] for p in running.pods()}
    began = time.monotonic()
    running.patch({"server": {"pingSeconds": 20}})
    running.ready()
    seconds = time.monotonic() - began
    report = traffic.settle()
    nothing_lost(report)
    assert not old & {p["metadata"]["uid"] for p in running.pods()}
    assert report["most_moves"] <= 2
    assert report["highest_share"] <= 1.2
    assert report["codes"] == {}
    record(**report, seconds=round(seconds))


def test_a_pod_is_deleted_in_order_and_then_two_are_killed_at_once(stage, record):
    stage.valkey()
    stage.imcluster(replicas=3)
    stage.ready()
    traffic = stage.traffic(servers=3)
    old = {p["metadata"]["uid"] for p in stage.pods()}
    stage.kubectl("delete", "pod", "chat-1", "--timeout=60s", timeout=70)
    stage.ready()
    assert len(old & {p["metadata"]["uid"] for p in stage.pods()}) == 2
    in_order = traffic.report()
    assert in_order["moves"] > 0
    assert in_order["codes"] == {}, "kubectl delete drains: its clients were moved, none was cut off"
    stage.kubectl("delete", "pod", "chat-0", "chat-2", "--force", "--grace-period=0")
    seconds = stage.ready()
    report = traffic.settle()
    nothing_lost(report)
    assert not old & {p["metadata"]["uid"] for p in stage.pods()}
    record(**report, seconds=round(seconds))


def test_the_operator_goes_during_all_of_it(running, release, record):
    traffic = running.traffic(servers=2)
    began = time.monotonic()

    def kill() -> None:
        selector = "app.kubernetes.io/name=imcluster-operator"
        kubectl("-n", release.system, "delete", "pod", "-l", selector, "--wait=false", "--grace-period=0", "--force")

    running.kubectl("scale", "imc", "chat", "--replicas=3")
    time.sleep(2)
    kill()
    running.ready()
    running.patch({"server": {"pingSeconds": 20}})
    time.sleep(8)
    kill()
    running.ready(timeout=180)
    running.kubectl("scale", "imc", "chat", "--replicas=2")
    time.sleep(1.5)
    kill()
    running.ready(timeout=180)
    seconds = time.monotonic() - began
    report = traffic.settle()
    nothing_lost(report)
    assert report["most_moves"] <= 3
    record(**report, seconds=round(seconds))


def test_redis_restarts(running, record):
    traffic = running.traffic(servers=2)
    epoch = running.status()["epoch"]
    began = time.monotonic()
    running.kubectl("exec", "deploy/valkey", "--", "sh", "-c", "kill -TERM 1")
    wait_for("Redis to be restarted", lambda: _answers(running), 60)
    seconds = time.monotonic() - began
    report = traffic.settle(8)
    nothing_lost(report)
    assert running.restarts() == 0
    assert running.status()["epoch"] == epoch, "a restart with a complete log changes nothing in the table"
    record(**report, seconds=round(seconds))


def _answers(stage: Stage) -> bool:
    try:
        return bool(stage.redis("PING"))
    except AssertionError:
        return False


def test_redis_is_away_for_a_while(running, record):
    traffic = running.traffic(servers=2)
    running.kubectl("scale", "deploy/valkey", "--replicas=0")
    wait_for("the condition", lambda: running.condition("Degraded")["reason"] == "RedisUnavailable", 60)
    assert "Redis unreachable" in running.condition("Degraded")["message"]
    assert running.condition("Ready")["status"] == "True", "clients are connected, and the servers are there"
    running.kubectl("scale", "deploy/valkey", "--replicas=1")
    began = time.monotonic()
    wait_for("the recovery", lambda: running.condition("Degraded")["status"] == "False", 60)
    seconds = time.monotonic() - began
    wait_for("every client", lambda: (r := traffic.report())["connected"] == r["clients"], 60)
    states = {s["name"]: s["state"] for s in running.status()["servers"]}
    assert states == {"chat-0": "active", "chat-1": "active"}
    assert running.restarts() == 0
    report = traffic.settle()
    record(refused=report["refused"], seconds=round(seconds))


def test_a_wrong_password_is_told_and_the_right_one_is_rotated(stage, record):
    stage.valkey(password="first-secret")
    stage.tools()
    stage.secret("wrong-secret")
    stage.imcluster(replicas=2)
    wait_for("the condition", lambda: stage.condition("Degraded")["reason"] == "RedisUnavailable", 60)
    assert "password" in stage.condition("Degraded")["message"]
    stage.secret("first-secret")
    stage.ready()
    events = stage.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message")
    assert "Redis unreachable: " in events and "Recovered" in events and "-secret" not in events
    traffic = stage.traffic(servers=2)
    began = time.monotonic()
    stage.redis("ACL", "SETUSER", "default", ">second-secret")
    stage.secret("second-secret")

    def renewed() -> bool:
        command = ("exec", "traffic", "--", "/app/bin/python", "-c", "print(open('/redis/key').read())")
        inside = [stage.kubectl(*command)]
        for pod in ("chat-0", "chat-1"):
            code = "print(open('/etc/imcluster/redis/password').read())"
            inside.append(stage.kubectl("exec", pod, "--", "/app/bin/python", "-c", code))
        return all(text.strip() == "second-secret" for text in inside)

    stage.renew_mounts()
    wait_for("the kubelet to renew the mounted Secret", renewed, 150, 1)
    stage.redis("ACL", "SETUSER", "default", "<first-secret")
    stage.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    seconds = time.monotonic() - began
    report = traffic.settle(8)
    nothing_lost(report)
    assert stage.restarts() == 0
    assert stage.condition("Degraded")["status"] == "False"
    record(**report, seconds=round(seconds))


def test_a_bad_image_and_its_correction(running, record):
    running.patch({"rollout": {"progressDeadlineSeconds": 10}})
    running.ready()
    traffic = running.traffic(servers=2)
    old = {p["metadata"]["name"]: p["metadata"]["uid"] for p in running.pods()}
    running.patch({"image": "localhost/imserver:there-is-none"})
    began = time.monotonic()
    wait_for("RolloutStuck", lambda: running.condition("Degraded")["reason"] == "RolloutStuck", 60)
    assert "chat-2 is not ready after 10 s: " in running.condition("Degraded")["message"]
    assert "there-is-none" in running.condition("Degraded")["message"]
    kept = {p["metadata"]["name"]: p["metadata"]["uid"] for p in running.pods()}
    assert {name: kept[name] for name in old} == old, "no further server is touched"
    running.patch({"image": None, "server": {"pingSeconds": 20}})
    running.ready()
    seconds = time.monotonic() - began
    report = traffic.settle()
    nothing_lost(report)
    assert not set(old.values()) & {p["metadata"]["uid"] for p in running.pods()}
    record(**report, seconds=round(seconds))


def test_a_first_start_that_never_comes_is_told_and_so_is_a_server_that_fails_later(stage, release):
    stage.valkey()
    stage.imcluster(replicas=2, image="localhost/imserver:there-is-none", rollout={"progressDeadlineSeconds": 10})
    words = "0 of 2 servers are ready; chat-0: "
    wait_for("the container's words", lambda: stage.condition("Progressing")["message"].startswith(words), 30, 0.2)
    assert "there-is-none" in stage.condition("Progressing")["message"]
    wait_for("RolloutStuck", lambda: stage.condition("Degraded")["reason"] == "RolloutStuck", 60)
    assert "there-is-none" in stage.condition("Degraded")["message"]
    (leader,) = release.leaders()
    degraded = f'imoperator_degraded{{name="chat",namespace="{stage.namespace}"}}'
    assert release.metric(leader, degraded) == 1, "the alert fires by this"
    stage.patch({"image": None})
    stage.ready()
    assert (stage.condition("Degraded")["status"], release.metric(leader, degraded)) == ("False", 0)
    image = '{"spec":{"containers":[{"name":"imserver","image":"localhost/imserver:gone"}]}}'
    stage.kubectl("patch", "pod", "chat-1", "-p", image)
    wait_for("ServersNotReady", lambda: stage.condition("Degraded")["reason"] == "ServersNotReady", 90)
    assert stage.condition("Degraded")["message"].startswith("chat-1 is not ready after 10 s: ")
    assert [s["state"] for s in stage.status()["servers"]] == ["active", "absent"]
    stage.kubectl("delete", "pod", "chat-1", "--force", "--grace-period=0")
    stage.ready()
    assert stage.condition("Degraded")["status"] == "False"


def test_a_template_that_changes_in_mid_rollout_kills_no_server_with_clients(running, record):
    running.kubectl("scale", "imc", "chat", "--replicas=3")
    running.ready()
    traffic = running.traffic(servers=3)
    began = time.monotonic()
    changes = (20, 21, 22)
    for seconds in changes:
        running.patch({"server": {"pingSeconds": seconds}})
        time.sleep(9)
    running.ready(timeout=180)
    took = time.monotonic() - began
    report = traffic.settle()
    nothing_lost(report)
    assert report["codes"] == {}, "every client was moved, none was cut off"
    assert report["most_moves"] <= 2 * len(changes)
    assert report["highest_share"] <= 1.2
    record(**report, seconds=round(took))


def test_kubectl_rollout_restart_and_an_eviction(running, record):
    traffic = running.traffic(servers=2)
    began = time.monotonic()
    running.kubectl("rollout", "restart", "sts/chat")
    time.sleep(4)
    running.ready(timeout=180)
    eviction = '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"chat-1"}}'
    path = f"/api/v1/namespaces/{running.namespace}/pods/chat-1/eviction"
    running.kubectl("create", "--raw", path, "-f", "-", text=eviction)
    time.sleep(2)
    running.ready()
    seconds = time.monotonic() - began
    report = traffic.settle()
    nothing_lost(report)
    record(**report, seconds=round(seconds))


def test_drift_is_healed(running):
    running.kubectl("delete", "service", "chat", "--wait=true")
    wait_for("the Service", lambda: "service/chat\n" in running.kubectl("get", "service", "-o", "name"), 10)
    running.kubectl("patch", "sts", "chat", "--type=merge", "-p", '{"spec":{"replicas":5}}')
    wait_for("the right size", lambda: get("sts", "chat", namespace=running.namespace)["spec"]["replicas"] == 2, 10)
    running.kubectl("delete", "pdb", "chat", "--wait=true")
    wait_for("the budget", lambda: "poddisruptionbudget" in running.kubectl("get", "pdb", "-o", "name"), 45)
    running.ready()


def _applies() -> float:
    """How often a StatefulSet was applied or patched so far, as the API server counts."""
    found = re.findall(
        r'^apiserver_request_total\{.*resource="statefulsets".*subresource="".*verb="(?:APPLY|PATCH)".*\} (\S+)$',
        kubectl("get", "--raw", "/metrics"),
        re.MULTILINE,
    )
    return sum(map(float, found))


def test_what_others_add_to_a_child_stays_and_is_not_fought(running):
    running.kubectl("set", "env", "sts/chat", "THEIRS=1")

    def rolled() -> bool:
        return all("THEIRS" in str(p["spec"]["containers"][0]["env"]) for p in running.pods())

    wait_for("both servers with it", rolled, 120)
    running.ready()
    before = _applies()
    assert before > 0
    # Long enough for a pass each second to show, and for a look of its own without any event.
    time.sleep(10)
    assert _applies() - before <= 2
    running.kubectl("patch", "sts", "chat", "--type=merge", "-p", '{"spec":{"replicas":3}}')
    wait_for("the right size", lambda: get("sts", "chat", namespace=running.namespace)["spec"]["replicas"] == 2, 20)


def test_what_others_have_made_under_its_names_is_left_alone(running):
    labels = {"app": "shop"}
    spec = {"selector": labels, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}
    running.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": spec},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}},
    )
    theirs = (
        "get",
        "service/shop",
        "serviceaccount/shop",
        "-o",
        "custom-columns=:.metadata.uid,:.metadata.labels,:.spec",
    )
    before = running.kubectl(*theirs)
    running.imcluster("shop", redis={"url": "redis://valkey:6379", "prefix": "shop"})
    wait_for("NameTaken", lambda: running.condition("Degraded", "shop")["reason"] == "NameTaken", 30)
    assert "shop is there already" in running.condition("Degraded", "shop")["message"]
    assert running.pods("shop") == []
    running.kubectl("delete", "imc", "shop", "--timeout=60s", timeout=70)
    time.sleep(2)
    assert running.kubectl(*theirs) == before, "neither was changed, nor did they go with the ImCluster"
    # An ImCluster that is called as a child of another one.
    exposure = {"type": "PerPodPath", "host": "chat.example.org", "maxOrdinals": 2}
    running.patch({"exposure": exposure})
    wait_for("the Services", lambda: "service/chat-1\n" in running.kubectl("get", "service", "-o", "name"), 30)
    running.imcluster("chat-1", redis={"url": "redis://valkey:6379", "prefix": "other"})
    wait_for("NameTaken", lambda: running.condition("Degraded", "chat-1")["reason"] == "NameTaken", 30)
    assert running.condition("Degraded", "chat-1")["message"].startswith("Service chat-1 belongs to ImCluster chat; ")
    running.kubectl("delete", "imc", "chat-1", "--timeout=60s", timeout=70)
    time.sleep(2)
    running.ready()
    assert (
        get("service", "chat-1", namespace=running.namespace)["spec"]["selector"].get("app.kubernetes.io/instance")
        == "chat"
    )


def test_an_imcluster_that_is_made_again_at_once_waits_for_what_the_old_one_left(running):
    old = get("sts", "chat", namespace=running.namespace)["metadata"]["uid"]
    running.kubectl("delete", "imc", "chat", "--wait=true", "--timeout=60s", timeout=70)
    running.imcluster(replicas=2)
    running.ready()
    uid = get("imc", "chat", namespace=running.namespace)["metadata"]["uid"]
    for kind, name in (("sts", "chat"), ("service", "chat"), ("service", "chat-pods"), ("sa", "chat"), ("pdb", "chat")):
        owners = get(kind, name, namespace=running.namespace)["metadata"]["ownerReferences"]
        assert [o["uid"] for o in owners] == [uid], f"{kind} {name}"
    assert get("sts", "chat", namespace=running.namespace)["metadata"]["uid"] != old
    assert running.condition("Degraded")["status"] == "False"


def test_two_clusters_side_by_side_and_a_prefix_used_twice(running):
    redis = {"url": "redis://valkey:6379"}
    running.imcluster("other", replicas=1, redis=redis | {"prefix": "other"})
    running.imcluster("thief", replicas=1, redis=redis)
    running.ready("other")
    wait_for("the refusal", lambda: running.condition("Degraded", "thief")["reason"] == "PrefixInUse", 30)
    assert running.pods("thief") == [], "its servers would fence those of the first"
    keys = set(running.redis("KEYS", "*"))
    running.kubectl("delete", "imc", "thief", "--timeout=30s")
    left = set(running.redis("KEYS", "*"))
    assert {k for k in keys if k.startswith("{im}")} <= left, "the keys of the owner are not the thief's to remove"
    running.kubectl("delete", "imc", "other", "--timeout=60s", timeout=70)
    assert [k for k in running.redis("KEYS", "*") if k.startswith("{other")] == []
    assert running.condition("Ready")["status"] == "True"


def test_deletion_leaves_nothing_behind(running, record):
    traffic = running.traffic(servers=2, rate=10)
    began = time.monotonic()
    running.kubectl("delete", "imc", "chat", "--timeout=60s", timeout=70)
    seconds = time.monotonic() - began
    codes = traffic.report()["codes"]
    assert codes.get("1012", 0) >= 384, codes
    running.kubectl("delete", "pod", "traffic", "--grace-period=0", "--force")
    assert [k for k in running.redis("KEYS", "*") if not k.startswith("{im:0}:")] == []
    selector = "app.kubernetes.io/managed-by=imoperator"
    kinds = "sts,svc,pdb,sa,ingress,pods"
    wait_for("the garbage collector", lambda: not running.kubectl("get", kinds, "-l", selector, "-o", "name"), 60)
    record(seconds=round(seconds))


def test_deletion_does_not_wait_for_a_redis_that_is_gone(stage, record):
    stage.imcluster("lost", redis={"url": "redis://nowhere:6379"})
    wait_for("the condition", lambda: stage.condition("Degraded", "lost")["reason"] == "RedisUnavailable", 60)
    began = time.monotonic()
    stage.kubectl("delete", "imc", "lost", "--timeout=60s", timeout=70)
    record(seconds=round(time.monotonic() - began))
