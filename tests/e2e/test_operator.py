# What happens to clients while the operator itself is upgraded, killed, blinded or uninstalled: nothing.
# An operator and a namespace of their own, so that the operator of the other tests stays as it is.

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.release import CHART, Release, new_namespace
from tests.e2e.stage import IMSERVER, Json, Stage, helm, nothing_lost, wait_for
from tests.support.kube import get, install_crd

pytestmark = pytest.mark.timeout(300)

# The same image under a second tag: what an upgrade of the operator brings.
NEXT = os.environ.get("IM_E2E_IMSERVER_NEXT", "")
BLIND = '{"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"ContainersReady","status":"False"}]}}'


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """An operator that each test brings to what it needs."""
    with new_namespace() as namespace:
        release = Release(namespace)
        install_crd()
        yield release
        release.remove()


@pytest.fixture(scope="module")
def stage(release: Release) -> Iterator[Stage]:
    """A Valkey, and a pod from which it can be asked, for the whole module."""
    stage = Stage(release.namespace)
    stage.valkey()
    stage.tools()
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def no_traffic(stage: Stage) -> Iterator[None]:
    """What a test that failed has left running would be counted by the next."""
    yield
    stage.kubectl("delete", "pod", "traffic", "--ignore-not-found", "--force", "--grace-period=0")


@pytest.fixture
def running(release: Release, stage: Stage) -> Stage:
    """Two replicas of this source tree's operator, and an ImCluster with two servers that are ready."""
    release.upgrade(replicas=2)
    stage.imcluster(replicas=2, drain={"socketsPerSecond": 40})
    stage.ready()
    return stage


@pytest.fixture(scope="module")
def older_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This source tree's chart under an older version: none was released yet."""
    folder = tmp_path_factory.mktemp("charts")
    helm("package", str(CHART), "--version", "0.0.9", "--destination", str(folder))
    return folder / "imcluster-0.0.9.tgz"


def the_leader(release: Release, *, after: str = "") -> str:
    """The one pod that leads, once it is another than `after`."""
    found: str = wait_for("a leader", lambda: next((pod for pod in release.leaders() if pod != after), ""), 60, 0.3)
    return found


def images(stage: Stage, name: str) -> list[str]:
    return [p["spec"]["containers"][0]["image"] for p in stage.pods(name)]


def test_an_upgrade_of_chart_and_operator_rolls_one_cluster_after_the_other(release, stage, older_chart, record):
    if not NEXT:
        pytest.skip("IM_E2E_IMSERVER_NEXT names no second tag of the imserver image")
    release.upgrade(older_chart)
    assert release.chart() == "imcluster-0.0.9"
    names = {"chat": 2, "east": 1, "held": 1}
    for name, replicas in names.items():
        redis = {"url": "redis://valkey:6379", "prefix": "im" if name == "chat" else name}
        stage.imcluster(name, replicas=replicas, redis=redis, rollout={"paused": name == "held"})
    for name in names:
        stage.ready(name)
    traffic = stage.traffic(servers=2)
    began = time.monotonic()
    release.upgrade(imserver=NEXT)
    assert release.chart() != "imcluster-0.0.9"
    seen: list[frozenset[str]] = []
    wait_for("the two that may roll", lambda: _rolled(stage, seen) >= {"chat", "east"}, 150, 0.3)
    seconds = time.monotonic() - began
    assert set(images(stage, "held")) == {IMSERVER}
    assert stage.condition("Progressing", "held")["reason"] == "Paused"
    assert stage.condition("Ready", "held")["status"] == "True"
    stage.patch({"rollout": {"paused": False}}, "held")
    wait_for("the released one", lambda: "held" in _rolled(stage, seen), 60, 0.3)
    rolling = {names for names in seen if names}
    assert rolling == {frozenset({name}) for name in names}, "one at a time, and each of them was seen to roll"
    report = traffic.settle()
    nothing_lost(report)
    assert report["codes"] == {}, "every client was moved, none was cut off"
    assert report["most_moves"] <= 2
    record(**report, seconds=round(seconds))
    stage.kubectl("delete", "imc", "--all", "--timeout=60s", timeout=70)


def _rolled(stage: Stage, seen: list[frozenset[str]]) -> set[str]:
    """Which clusters run the new image and are ready; notes in `seen` which are being rolled out at this moment."""
    done, rolling = set(), set()
    for cluster in get("imc", namespace=stage.namespace)["items"]:
        name, conditions = cluster["metadata"]["name"], {c["type"]: c for c in cluster["status"]["conditions"]}
        if conditions["Progressing"]["reason"] == "RollingOut":
            rolling.add(name)
        elif conditions["Ready"]["status"] == "True" and set(images(stage, name)) == {NEXT}:
            done.add(name)
    if seen[-1:] != [rolling]:
        seen.append(frozenset(rolling))
    return done


def test_the_leader_crashes_in_mid_scale_and_the_second_replica_takes_over(release, running, record):
    first = the_leader(release)
    traffic = running.traffic(servers=2)
    with running.publishing() as seen:
        running.kubectl("scale", "imc", "chat", "--replicas=1")
        wait_for("the first clients to move", lambda: traffic.report()["moves"] > 0, 30, 0.1)
        release.crash(first)
        began = time.monotonic()
        assert traffic.report()["by_server"]["chat-1"] > 0, "the crash is in mid-scale"
        second = the_leader(release, after=first)
        seconds = time.monotonic() - began
        running.ready()
        assert len(running.pods()) == 1
        running.kubectl("scale", "imc", "chat", "--replicas=2")
        running.ready()
        assert release.leaders() == [second]
    report = traffic.settle()
    nothing_lost(report)
    assert (report["codes"], report["most_moves"]) == ({}, 1)
    assert [p.rpartition("_")[0] for p in seen.publishers] == [first, second], "one publisher, and then the other"
    assert seen.epochs == sorted(seen.epochs)
    record(**report, seconds=round(seconds))


@contextmanager
def blinded(stage: Stage) -> Iterator[None]:
    """The API shows every server as not ready, as when the kubelets can't reach it, five times a second anew."""
    over, pods = threading.Event(), [p["metadata"]["name"] for p in stage.pods()]
    failed: list[BaseException] = []

    def blind() -> None:
        try:
            while not over.wait(0.2):
                stage.kubectl("patch", "pod", *pods, "--subresource=status", "-p", BLIND)
        except AssertionError as error:
            failed.append(error)

    thread = threading.Thread(target=blind)
    thread.start()
    try:
        yield
        assert not failed, failed
    finally:
        over.set()
        thread.join(60)


def _servers(stage: Stage) -> list[Json]:
    return [{k: s[k] for k in ("name", "state", "slots", "url")} for s in stage.status()["servers"]]


def test_all_servers_look_not_ready_even_to_an_operator_that_has_just_begun(release, running, record):
    traffic = running.traffic(servers=2)
    before, epoch = _servers(running), running.status()["epoch"]
    old = the_leader(release)
    began = time.monotonic()
    with running.publishing() as seen, blinded(running):
        wait_for("the operator to see it", lambda: running.status()["readyReplicas"] == 0, 30, 0.2)
        assert running.condition("Ready")["status"] == "False"
        sent = traffic.report()["sent"]
        release.delete(old)
        new = the_leader(release, after=old)
        passes = 'imoperator_reconcile_total{result="ok"}'
        wait_for("ten passes of the new operator", lambda: release.metric(new, passes) >= 10, 60)
        assert running.status()["readyReplicas"] == 0
        assert traffic.report()["sent"] > sent
    seconds = time.monotonic() - began
    running.ready()
    assert _servers(running) == before
    assert seen.epochs == [epoch], "the table was not touched"
    assert [p.rpartition("_")[0] for p in seen.publishers] == [old, new]
    report = traffic.settle()
    nothing_lost(report)
    assert (report["codes"], report["moves"]) == ({}, 0), "no client moved"
    record(**report, seconds=round(seconds))


@contextmanager
def fewer_rights(stage: Stage, resource: str) -> Iterator[None]:
    """The operator's Role says nothing of a resource while the block runs."""
    role = get("role", "e2e-operator", namespace=stage.namespace)
    rules = [rule for rule in role["rules"] if resource not in rule["resources"]]
    assert len(rules) == len(role["rules"]) - 1

    def write(kept: list[Json]) -> None:
        stage.kubectl("patch", "role", "e2e-operator", "--type=merge", "-p", json.dumps({"rules": kept}))

    write(rules)
    try:
        yield
    finally:
        write(role["rules"])


def test_an_operator_without_the_rights_that_it_needs_says_so(running):
    with fewer_rights(running, "ingresses"):
        running.imcluster("late", replicas=1, redis={"url": "redis://valkey:6379", "prefix": "late"})
        for name in ("chat", "late"):
            wait_for(f"{name} to say it", partial(_says, running, name, "ReconcileFailed"), 90)
            assert "ingresses.networking.k8s.io is forbidden" in running.condition("Degraded", name)["message"]
            assert running.condition("Ready", name)["status"] == "False"
        assert running.status()["readyReplicas"] == 2, "what was known stays"
    for name in ("chat", "late"):
        running.ready(name)
        assert running.condition("Degraded", name)["status"] == "False"
    running.kubectl("delete", "imc", "late", "--timeout=60s", timeout=70)


def _says(stage: Stage, name: str, reason: str) -> bool:
    return bool(stage.condition("Degraded", name)["reason"] == reason)


def test_uninstalling_the_operator_leaves_clusters_alone_and_their_deletion_free(release, running, record):
    traffic = running.traffic(servers=2)
    pods = {p["metadata"]["uid"] for p in running.pods()}
    release.uninstall()
    assert get("imc", "chat", namespace=running.namespace)["metadata"].get("finalizers", []) == []
    assert {p["metadata"]["uid"] for p in running.pods()} == pods
    report = traffic.settle()
    nothing_lost(report)
    assert (report["codes"], report["moves"]) == ({}, 0)
    began = time.monotonic()
    running.kubectl("delete", "imc", "chat", "--timeout=30s")
    wait_for("the garbage collector", lambda: not running.pods(), 60)
    record(**report, seconds=round(time.monotonic() - began))
