# Servers that do not come: what the status says at once, what it says past the deadline, and from when that counts.

from dataclasses import replace
from typing import Any

import pytest

from imoperator.late import late
from imoperator.model import Cluster, Pod, Seen, Workload
from imoperator.names import Key
from imoperator.observe import read_pod
from imoperator.patience import Patience
from imoperator.rollout import plan
from imoperator.spec import parse_spec
from imoperator.status import build_status
from tests.support.rollout_world import World

WORK = Workload(3, 3, "t", 1, "spec", "r", "r", True)
IMAGE = "ErrImagePull: there is no such image"


def cluster(**spec: Any) -> Cluster:
    spec = {"replicas": 3, "redis": {"url": "redis://r"}, "rollout": {"progressDeadlineSeconds": 60}} | spec
    return Cluster(Key("ns", "chat"), "uid", 1, parse_spec(spec))


def pod(ordinal: int, *, ready: bool = False, **more: Any) -> Pod:
    values: dict[str, Any] = {"changed": 10.0 if ready else None, "created": 0.0} | more
    return Pod(f"chat-{ordinal}", ordinal, f"u{ordinal}", "r", ready=ready, **values)


def conditions(seen: Seen, at: Cluster | None = None) -> dict[str, tuple[str, str, str]]:
    at = at or cluster()
    status = build_status(at, seen, None, plan(at, seen, None, "t"), None)
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}


def test_what_a_container_says_is_told_at_once_and_degrades_after_the_deadline():
    starting = (pod(0, ready=True), pod(1, trouble="ContainerCreating"), pod(2, trouble=IMAGE))
    at_once = conditions(Seen(5.0, starting, WORK))
    assert at_once["Progressing"] == ("True", "Starting", f"1 of 3 servers are ready; chat-2: {IMAGE}")
    assert at_once["Degraded"][:2] == ("False", "Healthy")
    seen = Seen(61.0, tuple(replace(p, ready=False, changed=None, trouble=IMAGE) for p in starting), WORK)
    message = f"chat-0 is not ready after 60 s: {IMAGE}; so it is with 2 more"
    assert conditions(seen) == {
        "Ready": ("False", "RolloutStuck", message),
        "Progressing": ("False", "RolloutStuck", message),
        "Degraded": ("True", "RolloutStuck", message),
    }


def test_an_ordinary_start_has_no_words_of_its_own():
    seen = Seen(
        5.0, tuple(pod(i, trouble="ContainersNotReady: containers with unready status") for i in range(3)), WORK
    )
    assert conditions(seen)["Progressing"][2] == "0 of 3 servers are ready"


def test_a_server_that_fails_at_rest_has_its_time_from_when_it_ceased_to_be_ready():
    pods = (
        pod(0, ready=True),
        replace(pod(1), changed=5000.0, trouble="CrashLoopBackOff: OOMKilled"),
        pod(2, ready=True),
    )
    assert conditions(Seen(5060.0, pods, WORK))["Degraded"][0] == "False"
    found = conditions(Seen(5061.0, pods, WORK))
    assert found["Degraded"][:2] == ("True", "ServersNotReady")
    assert found["Degraded"][2] == "chat-1 is not ready after 60 s: CrashLoopBackOff: OOMKilled"
    assert found["Progressing"][:2] == ("False", "ServersNotReady")


def test_the_new_servers_of_a_scale_up_that_never_come_degrade():
    world = World(2, rollout={"progressDeadlineSeconds": 60})
    world.settle()
    world.bad = {"r1"}
    world.scale(4)
    world.tick(40)
    assert degraded(world)[0] == "False"
    world.tick(40)
    assert degraded(world)[:2] == ("True", "ServersNotReady")
    world.restart_operator()
    world.tick()
    assert degraded(world)[:2] == ("True", "ServersNotReady"), "the pods themselves tell it to the next process"
    world.scale(2)
    world.settle()
    assert degraded(world)[0] == "False"


def degraded(world: World) -> tuple[str, str, str]:
    status = build_status(world.cluster, world.seen(), world.view(), world.last, None)
    found = status["conditions"][2]
    return found["status"], found["reason"], found["message"]


def test_pods_that_are_never_made_degrade_too_also_for_the_next_process():
    at, patience, rest = cluster(), Patience(), (pod(0, ready=True), pod(1, ready=True))
    assert conditions(patience.note(at, Seen(100.0, rest, WORK)), at)["Degraded"][0] == "False"
    assert conditions(patience.note(at, Seen(160.0, rest, WORK)), at)["Degraded"][0] == "False"
    seen = patience.note(at, Seen(161.0, rest, WORK))
    told = conditions(seen, at)["Degraded"]
    assert told[:2] == ("True", "ServersNotReady")
    assert told[2] == "chat-2 is not there after 60 s: the events of StatefulSet chat tell why"
    after = replace(at, status=build_status(at, seen, None, plan(at, seen, None, "t"), None))
    assert conditions(Patience().note(after, Seen(162.0, rest, WORK)), after)["Degraded"][:2] == told[:2]
    whole = Seen(170.0, (*rest, pod(2, created=165.0)), WORK)
    assert conditions(patience.note(at, whole), at)["Degraded"][0] == "False", "a pod that comes has its own time"


def test_a_roll_out_whose_new_pod_is_never_made_is_stuck():
    at, patience = cluster(), Patience()
    pods = tuple(replace(pod(i, ready=True), revision="old") for i in range(3))
    work = replace(WORK, replicas=4, partition=3, current_revision="old")
    for now in (100.0, 161.0):
        found = conditions(patience.note(at, Seen(now, pods, work)), at)["Degraded"]
    assert found[:2] == ("True", "RolloutStuck") and found[2].startswith("chat-3 is not there after 60 s")


def test_old_servers_that_fail_do_not_speak_while_a_roll_out_replaces_them():
    pods = (*(replace(pod(i, trouble=IMAGE), revision="bad") for i in range(3)), pod(3, created=500.0))
    work = replace(WORK, replicas=4, partition=3, current_revision="bad")
    assert conditions(Seen(510.0, pods, work))["Degraded"][0] == "False"
    held = cluster(rollout={"progressDeadlineSeconds": 60, "paused": True})
    assert conditions(Seen(510.0, pods, work), held)["Degraded"][0] == "True", "nobody replaces them"
    waiting = Seen(510.0, pods[:3], replace(work, replicas=3))
    assert late(cluster(), waiting, rolling=False) is not None, "nor while another cluster has the turn"
    assert late(cluster(), waiting, rolling=True) is None


def test_a_drain_of_an_hour_is_no_failure_nor_is_the_moment_after_it():
    at, patience = cluster(), Patience()
    rest = (pod(0, ready=True), pod(1, ready=True))
    emptied = replace(pod(2), changed=100.0, draining_since=100.0)
    assert conditions(patience.note(at, Seen(3700.0, (*rest, emptied), WORK)), at)["Degraded"][0] == "False"
    serving = (*rest, replace(emptied, draining_since=None))
    assert conditions(patience.note(at, Seen(3701.0, serving, WORK)), at)["Degraded"][0] == "False"
    assert conditions(patience.note(at, Seen(3761.0, serving, WORK)), at)["Degraded"][0] == "True"


def test_a_pod_that_can_not_end_is_told():
    pods = (pod(0, ready=True), pod(1, ready=True), replace(pod(2), changed=10.0, deleting_since=100.0))
    assert conditions(Seen(100.0 + 60 + 300, pods, WORK))["Degraded"][0] == "False"
    found = conditions(Seen(100.0 + 60 + 301, pods, WORK))["Degraded"]
    assert found[1:] == (
        "ServersNotReady",
        "chat-2 was to end and is still there after 60 s more: its node may be away",
    )


def test_a_server_without_a_url_is_told_after_a_while_and_stays_ready():
    exposure = {"type": "Shared", "urlTemplate": "ws://h:{nodePort}/ws"}
    at, patience = cluster(exposure=exposure), Patience()
    pods = tuple(pod(i, ready=True) for i in range(3))
    assert conditions(patience.note(at, Seen(100.0, pods, WORK)), at)["Degraded"][0] == "False"
    assert conditions(patience.note(at, Seen(130.0, pods, WORK)), at)["Degraded"][0] == "False"
    seen = patience.note(at, Seen(131.0, pods, WORK))
    found = conditions(seen, at)
    assert (
        found["Degraded"][:2] == ("True", "NoUrl") and "{nodePort}, and Service chat has none" in found["Degraded"][2]
    )
    assert found["Ready"][:2] == ("True", "Ready")
    after = replace(at, status=build_status(at, seen, None, plan(at, seen, None, "t"), None))
    assert conditions(Patience().note(after, Seen(132.0, pods, WORK)), after)["Degraded"][1] == "NoUrl"
    ports = Seen(140.0, pods, WORK, {"chat": 30000})
    assert conditions(patience.note(at, ports), at)["Degraded"][0] == "False"


READY, INITIALIZED = "2026-01-01T00:10:00Z", "2026-01-01T00:00:02Z"


@pytest.mark.parametrize(
    ("status", "ready_since", "initialized", "changed"),
    [
        ("True", READY, INITIALIZED, True),
        ("False", READY, INITIALIZED, True),
        ("False", INITIALIZED, INITIALIZED, False),
        # Its init containers took their time.
        ("False", INITIALIZED, READY, False),
        ("False", READY, None, False),
    ],
)
def test_when_a_pod_ceased_to_be_ready_is_what_its_conditions_say(status, ready_since, initialized, changed):
    found: list[dict[str, Any]] = [{"type": "Ready", "status": status, "lastTransitionTime": ready_since}]
    if initialized is not None:
        found.append({"type": "Initialized", "status": "True", "lastTransitionTime": initialized})
    metadata = {"name": "chat-0", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    read = read_pod("chat", {"metadata": metadata, "status": {"conditions": found}})
    assert read is not None and read.ready == (status == "True")
    assert read.changed == (read.created + 600 if changed else None)
