# Which servers the table knows: what admits a server, what removes it, and what must never empty the table.

from dataclasses import replace

import pytest

from imhelper.core.leases import Lease
from imhelper.core.topology import ACTIVE, DRAINING, ServerEntry, Topology
from imoperator.beats import Beats
from imoperator.fleet import block_table, limits_of, next_topology
from imoperator.model import Cluster, Pod, RedisView, Seen
from imoperator.names import Key
from imoperator.spec import parse_spec
from imoperator.turn import Turn

CLUSTER = Cluster(
    Key("ns", "c"), "uid", 1, parse_spec({"replicas": 2, "redis": {"url": "redis://r"}, "server": {"graceSeconds": 3}})
)


def pod(ordinal: int, **more) -> Pod:
    return Pod(f"c-{ordinal}", ordinal, f"u{ordinal}", "r1", 0.0, **({"ready": True} | more))


def lease(ordinal: int, state: str = ACTIVE, drain: str = "", connections: int = 0) -> Lease:
    report = {"state": state, "drain": drain, "connections": connections}
    return Lease(f"c-{ordinal}", f"b{ordinal}", 1, 0.1, report)


def leases(*found: Lease) -> dict[str, Lease]:
    return {at.name: at for at in found}


def decide(pods, view, leaving=(), admitted=None, **more) -> Topology | None:
    known = {p.name: p.uid for p in pods} if admitted is None else admitted
    return next_topology(CLUSTER, Seen(0.0, tuple(pods)), view, leaving, admitted=known, **more)


def both_active() -> Topology:
    found = decide([pod(0), pod(1)], RedisView(None, leases(lease(0), lease(1))))
    assert found is not None
    return found.with_epoch(7)


def states(topology: Topology | None) -> dict[str, str]:
    assert topology is not None
    return {s.name: s.state for s in topology.servers}


def test_the_first_topology_is_empty_so_that_servers_can_start():
    first = decide([], RedisView(None, {}), groups=16)
    assert first is not None
    assert (first.servers, first.table, first.groups, first.limits.grace_seconds) == ((), (), 16, 3.0)


def test_readiness_admits_and_never_removes():
    new = decide([pod(0), pod(1, ready=False)], RedisView(None, leases(lease(0), lease(1))), admitted={})
    assert states(new) == {"c-0": ACTIVE}
    old = both_active()
    assert decide([pod(0, ready=False), pod(1, ready=False)], RedisView(old, leases(lease(0), lease(1)))) is None


def test_another_pod_of_the_same_name_has_to_become_ready_first():
    old = both_active()
    fresh = replace(pod(1, ready=False), uid="another")
    admitted = {"c-0": "u0", "c-1": "u1"}
    new = decide([pod(0), fresh], RedisView(old, leases(lease(0), lease(1))), admitted=admitted)
    assert states(new) == {"c-0": ACTIVE}


@pytest.mark.parametrize(
    ("changed", "view", "expected"),
    [
        (pod(1), RedisView(None, leases(lease(0), lease(1)), frozenset({"c-1"})), None),
        (pod(1), RedisView(None, leases(lease(0), lease(1, DRAINING, "end"))), DRAINING),
        (pod(1, deleting_since=1.0), RedisView(None, leases(lease(0), lease(1))), DRAINING),
        (pod(1, finished=True), RedisView(None, leases(lease(0), lease(1))), None),
        (pod(1), RedisView(None, leases(lease(0))), ACTIVE),
    ],
    ids=["its lease is dead", "it ends", "it is deleted", "it has failed", "Redis forgot it, for now"],
)
def test_what_removes_a_server(changed, view, expected):
    old = both_active()
    new = decide([pod(0), changed], replace(view, topology=old)) or old
    assert states(new).get("c-1") == expected
    if expected != ACTIVE:
        assert set(new.table) == {[s.name for s in new.servers].index("c-0")}


def test_a_server_that_drains_because_the_table_says_so_is_active_when_it_no_longer_does():
    old = both_active()
    drained = replace(old, servers=(old.servers[0], replace(old.servers[1], state=DRAINING)))
    view = RedisView(drained, leases(lease(0), lease(1, DRAINING, "topology")))
    assert states(decide([pod(0), pod(1, ready=False)], view)) == {"c-0": ACTIVE, "c-1": ACTIVE}


def test_a_table_is_never_emptied_while_pods_exist_and_nobody_wants_them_to_leave():
    old = both_active()
    pods = [pod(0), pod(1)]
    gone = RedisView(old, leases(lease(0), lease(1)), frozenset({"c-0", "c-1"}))
    assert decide(pods, gone) is None
    assert states(decide(pods, replace(gone, dead=frozenset()), leaving={"c-0", "c-1"})) == {
        "c-0": DRAINING,
        "c-1": DRAINING,
    }
    assert states(decide([], replace(gone, dead=frozenset()), admitted={})) == {}


def test_the_limits_follow_the_spec_and_are_published_when_they_change():
    old = both_active()
    changed = replace(old, limits=replace(limits_of(CLUSTER), grace_seconds=9.0))
    new = decide([pod(0), pod(1)], RedisView(changed, leases(lease(0), lease(1))))
    assert new is not None and new.limits.grace_seconds == 3.0 and new.table == old.table


def test_what_is_right_is_not_published_again():
    assert decide([pod(0), pod(1)], RedisView(both_active(), leases(lease(0), lease(1)))) is None


def entries(*names: str) -> list[ServerEntry]:
    return [ServerEntry(n.rstrip("!"), f"ws://{n}/ws", DRAINING if n.endswith("!") else ACTIVE) for n in names]


def table_of(servers: list[ServerEntry], counts: dict[str, int]) -> Topology:
    index = {s.name: i for i, s in enumerate(servers)}
    slots = tuple(index[name] for name, count in counts.items() for _ in range(count))
    return Topology(1, len(slots), 1, tuple(servers), slots)


def shares(servers: list[ServerEntry], table: tuple[int, ...] | None) -> dict[str, int]:
    assert table is not None
    return {s.name: table.count(i) for i, s in enumerate(servers)}


def test_a_leaving_servers_slots_go_as_one_block_to_the_emptiest_new_server():
    old = table_of(entries("a", "b", "c"), {"a": 43, "b": 43, "c": 42})
    now = entries("a", "b", "c!", "surge")
    assert shares(now, block_table(now, old, {"surge"}, {"surge"}, 3)) == {"a": 43, "b": 43, "c": 0, "surge": 42}


def test_a_server_that_stays_is_preferred_to_one_that_leaves_again():
    old = table_of(entries("a", "b", "c", "surge"), {"a": 64, "b": 64})
    now = entries("a", "b!", "c", "surge")
    assert shares(now, block_table(now, old, {"c", "surge"}, {"surge"}, 2)) == {"a": 64, "b": 0, "c": 64, "surge": 0}


def test_a_block_that_is_too_much_for_every_new_server_goes_to_an_old_one_that_is_empty():
    old = table_of(entries("a", "b", "c", "surge"), {"a": 43, "c": 43, "surge": 42})
    now = entries("a", "b", "c", "surge!")
    assert shares(now, block_table(now, old, {"c"}, set(), 3)) == {"a": 43, "b": 42, "c": 43, "surge": 0}


def test_what_is_spread_goes_to_new_servers_as_long_as_they_have_room():
    old = table_of(entries("a", "b", "c", "d"), {"a": 50, "b": 40, "c": 18, "d": 20})
    now = entries("a!", "b", "c", "d")
    assert shares(now, block_table(now, old, {"b"}, set(), 3)) == {"a": 0, "b": 51, "c": 39, "d": 38}


def test_a_block_that_would_overload_its_taker_is_spread():
    old = table_of(entries("a", "b", "surge"), {"a": 43, "b": 43, "surge": 42})
    now = entries("a", "surge")
    assert shares(now, block_table(now, old, {"surge"}, {"surge"}, 3)) == {"a": 64, "surge": 64}
    assert block_table(entries("a!"), old, set(), set(), 3) is None


def test_beats_condemn_only_what_stood_still_while_redis_answered():
    beats = Beats()
    moving = [leases(Lease("c-0", "b", n, 0.1, {}), Lease("c-1", "b", 1, 0.1, {})) for n in range(20)]
    for second in range(5):
        assert beats.observe(100.0 + second, moving[second], ["c-0", "c-1"], 5.0) == frozenset()
    assert beats.observe(105.1, moving[6], ["c-0", "c-1"], 5.0) == {"c-1"}
    assert beats.observe(106.0, {}, ["c-0", "c-1"], 5.0) == frozenset(), "Redis has lost all: they have time to return"
    for second in range(107, 111):
        beats.observe(float(second), {}, ["c-0"], 5.0)
    assert beats.observe(111.1, {}, ["c-0"], 5.0) == {"c-0"}


def test_a_gap_in_what_was_seen_starts_the_time_again():
    beats = Beats()
    still = leases(Lease("c-0", "b", 1, 0.1, {}))
    beats.observe(100.0, still, [], 5.0)
    assert beats.observe(200.0, still, [], 5.0) == frozenset()
    for second in (202.0, 204.0):
        assert beats.observe(second, still, [], 5.0) == frozenset()
    assert beats.observe(205.5, still, [], 5.0) == {"c-0"}


def test_one_cluster_at_a_time_has_the_turn():
    turn, a, b = Turn(), Key("ns", "a"), Key("ns", "b")
    assert turn.take(a, under_way=False) and turn.take(a, under_way=False) and not turn.take(b, under_way=False)
    turn.give_back(b)
    assert not turn.take(b, under_way=False)
    turn.give_back(a)
    assert turn.take(b, under_way=False)
