# The status that people and autoscalers read, and the events that tell of its changes.

from dataclasses import replace
from typing import Any

import pytest

from imhelper.core.leases import Lease
from imhelper.core.topology import ACTIVE, ServerEntry, Topology
from imoperator.model import Cluster, Pod, Problem, RedisView, Seen
from imoperator.names import Key
from imoperator.rollout import Plan
from imoperator.spec import parse_spec
from imoperator.status import Event, build_status, events_of, urgent

CLUSTER = Cluster(Key("ns", "chat"), "uid", 5, parse_spec({"replicas": 2, "redis": {"url": "redis://r"}}))
PAUSED = replace(CLUSTER, spec=parse_spec({"replicas": 2, "redis": {"url": "redis://r"}, "rollout": {"paused": True}}))
PODS = tuple(Pod(f"chat-{i}", i, f"u{i}", "r", 0.0, ready=True) for i in range(2))
SERVERS = tuple(ServerEntry(f"chat-{i}", f"ws://{i}/ws", ACTIVE) for i in range(2))
VIEW = RedisView(
    Topology(9, 128, 1, SERVERS, (0, 1) * 64),
    {f"chat-{i}": Lease(f"chat-{i}", "b", 1, 0.1, {"connections": 10 + i}) for i in range(2)},
)
REST = Plan(2, 2)


def build(cluster: Cluster = CLUSTER, pods=PODS, view: RedisView | None = VIEW, plan=REST, problem=None, at=100.0):
    return build_status(cluster, Seen(at, tuple(pods)), view, plan, problem)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def test_at_rest():
    status = build()
    assert {k: status[k] for k in ("observedGeneration", "replicas", "readyReplicas", "epoch", "connections")} == {
        "observedGeneration": 5,
        "replicas": 2,
        "readyReplicas": 2,
        "epoch": 9,
        "connections": 21,
    }
    assert status["selector"] == "app.kubernetes.io/name=imserver,app.kubernetes.io/instance=chat"
    assert status["servers"][1] == {
        "name": "chat-1",
        "state": "active",
        "url": "ws://1/ws",
        "slots": 64,
        "connections": 11,
    }
    assert conditions(status) == {
        "Ready": ("True", "Ready"),
        "Progressing": ("False", "Settled"),
        "Degraded": ("False", "Healthy"),
    }


@pytest.mark.parametrize(
    ("changes", "ready", "progressing", "degraded"),
    [
        ({"pods": PODS[:1]}, ("False", "Starting"), ("True", "Starting"), ("False", "Healthy")),
        (
            {"plan": Plan(3, 2, rolling=True, outdated=1)},
            ("False", "RollingOut"),
            ("True", "RollingOut"),
            ("False", "Healthy"),
        ),
        (
            {"plan": Plan(3, 2, rolling=True, outdated=1, stuck="chat-2 says no")},
            ("False", "RolloutStuck"),
            ("False", "RolloutStuck"),
            ("True", "RolloutStuck"),
        ),
        (
            {"pods": [*PODS, replace(PODS[0], name="chat-2", ordinal=2)]},
            ("False", "ScalingDown"),
            ("True", "ScalingDown"),
            ("False", "Healthy"),
        ),
        ({"plan": Plan(2, 2, outdated=2)}, ("True", "Ready"), ("False", "Waiting"), ("False", "Healthy")),
        (
            {"plan": Plan(2, 2, outdated=2), "cluster": PAUSED},
            ("True", "Ready"),
            ("False", "Paused"),
            ("False", "Healthy"),
        ),
        (
            {"problem": Problem("RedisUnavailable", "Redis unreachable"), "view": None},
            ("True", "Ready"),
            ("False", "Settled"),
            ("True", "RedisUnavailable"),
        ),
        (
            {"problem": Problem("PrefixInUse", "it is another's"), "pods": [], "view": None},
            ("False", "PrefixInUse"),
            ("True", "Starting"),
            ("True", "PrefixInUse"),
        ),
        (
            {"problem": Problem("InvalidSpec", "no"), "plan": None},
            ("False", "InvalidSpec"),
            ("False", "Settled"),
            ("True", "InvalidSpec"),
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_conditions(changes, ready, progressing, degraded):
    assert conditions(build(**changes)) == {"Ready": ready, "Progressing": progressing, "Degraded": degraded}


def test_a_transition_keeps_its_time_until_the_status_changes():
    first = build(at=100.0)
    cluster = replace(CLUSTER, status=first)
    later = build(cluster, at=200.0)
    assert later == first
    broken = build(cluster, at=300.0, pods=PODS[:1])
    times = {c["type"]: c["lastTransitionTime"] for c in broken["conditions"]}
    assert times["Ready"] == "1970-01-01T00:05:00Z" and times["Degraded"] == "1970-01-01T00:01:40Z"


def test_what_redis_said_last_stays_while_it_is_away():
    cluster = replace(CLUSTER, status=build())
    status = build(cluster, view=None)
    assert (status["epoch"], status["connections"]) == (9, 21)


def test_counters_alone_are_not_urgent():
    old = build()
    busier = {"chat-0": Lease("chat-0", "b", 2, 0.1, {"connections": 99})}
    counted = build(view=replace(VIEW, leases={**VIEW.leases, **busier}))
    assert counted != old and not urgent(old, counted)
    assert urgent(old, build(pods=PODS[:1]))


def told(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(e.reason, e.warning) for e in events_of(before, after)]


def test_events_tell_of_changes_once():
    rest = build()
    rolling = build(plan=Plan(3, 2, rolling=True, outdated=1))
    stuck = build(plan=Plan(3, 2, rolling=True, outdated=1, stuck="chat-2 says no"))
    away = build(problem=Problem("RedisUnavailable", "Redis unreachable"), view=None)
    assert told({}, rest) == [], "what is well from the beginning needs no words"
    assert told({}, away) == [("RedisUnavailable", True)]
    assert told(rest, rest) == []
    assert told(rest, rolling) == [("RollingOut", False)]
    assert told(rolling, rest) == [("RolledOut", False), ("Ready", False)]
    assert told(rolling, stuck) == [("RolloutStuck", True)]
    assert told(stuck, stuck) == []
    assert told(rest, away) == [("RedisUnavailable", True)]
    assert told(away, rest) == [("Recovered", False)]
    assert events_of(rest, away)[0] == Event("RedisUnavailable", "Redis unreachable", True)
