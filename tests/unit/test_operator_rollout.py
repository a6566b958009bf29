# Scaling and roll-outs against a small model of Kubernetes (tests/support/rollout_world.py).
# The laws: no pod with clients is taken, nobody moves more than twice, no server is overloaded, and it always comes
# to rest.

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imhelper.core.leases import Lease
from imhelper.core.topology import DRAINING
from imoperator.model import RedisView
from imoperator.rollout import plan
from tests.support.rollout_world import World


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 8])
def test_a_rollout_moves_nobody_more_than_twice_and_overloads_nobody(replicas):
    world = World(replicas)
    world.settle()
    world.forget_moves()
    world.template = "t2"
    world.settle()
    assert max(world.moves.values()) <= 2
    assert world.highest <= 1.2
    assert world.most_draining == 1
    assert all(p.revision == "r2" for p in world.pods.values())


def test_a_rollout_without_surge_comes_to_rest_too():
    world = World(3, rollout={"maxSurge": 0})
    world.settle()
    world.template = "t2"
    world.settle()
    assert world.most_draining == 1


def test_a_rollout_that_is_scaled_to_nothing_starts_no_server_again():
    world = World(1)
    world.settle()
    world.template = "t2"
    world.tick(6)
    assert world.state_of(0) == DRAINING and len(world.pods) == 2
    started = world.count
    world.scale(0)
    world.settle()
    assert (len(world.pods), world.count) == (0, started)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_scaling_never_takes_a_pod_with_clients(before, after, seconds):
    world = World(before)
    world.tick(seconds)
    world.scale(after)
    world.settle()
    assert len(world.pods) == after


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["template", "scale", "kill", "wait"]), st.integers(0, 5)), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_it_comes_to_rest_and_no_client_is_cut_off(replicas, happenings):
    world = World(replicas)
    world.settle()
    for number, (what, size) in enumerate(happenings):
        if what == "template":
            world.template = f"t{number + 2}"
        elif what == "scale":
            world.scale(size)
        elif what == "kill" and size in world.pods:
            # A crash: its clients are gone without being asked, which is not the operator's doing.
            del world.pods[size]
        world.tick(size * 2)
    world.settle()
    assert len(world.pods) == world.cluster.spec.replicas


def test_a_bad_template_stops_at_the_first_pod_and_the_corrected_one_goes_on():
    world = World(3, rollout={"progressDeadlineSeconds": 10})
    world.settle()
    world.forget_moves()
    world.bad = {"r2"}
    world.template = "t2"
    world.tick(60)
    assert world.last.stuck.startswith("c-3 is not ready after 10 s")
    assert {p.revision for i, p in world.pods.items() if i < 3} == {"r1"}
    assert max(world.moves.values()) == 0
    world.template = "t3"
    world.settle()
    assert {p.revision for p in world.pods.values()} == {"r3"}


def test_going_back_to_the_old_template_replaces_only_what_was_changed():
    world = World(3, rollout={"progressDeadlineSeconds": 10})
    world.settle()
    world.bad = {"r2"}
    world.template = "t2"
    world.tick(40)
    uids = {i: p.uid for i, p in world.pods.items() if i < 3}
    world.template = "t1"
    world.settle()
    assert {i: p.uid for i, p in world.pods.items()} == uids


def test_a_held_rollout_applies_the_template_and_replaces_nothing():
    world = World(3)
    world.settle()
    uids = {i: p.uid for i, p in world.pods.items()}
    world.template = "t2"
    world.hold = True
    for _ in range(30):
        world.tick()
        assert not world.last.rolling, "people are not told of a roll-out that waits"
    assert {i: p.uid for i, p in world.pods.items()} == uids
    assert world.last.outdated == 3
    world.hold = False
    world.settle()
    assert all(p.revision == "r2" for p in world.pods.values())


def test_with_redis_away_nothing_is_drained_further_or_taken():
    world = World(3)
    world.settle()
    seen = world.seen()
    pods = tuple(replace(p, draining_since=world.now if p.ordinal == 2 else None) for p in seen.pods)
    cluster = replace(world.cluster, spec=replace(world.cluster.spec, replicas=2))
    steps = plan(cluster, replace(seen, pods=pods), None, "t1")
    assert steps.replicas == 3
    late = tuple(replace(p, draining_since=world.now - 400) if p.ordinal == 2 else p for p in pods)
    assert plan(cluster, replace(seen, pods=late), None, "t1").replicas == 2


def test_a_drained_pod_that_is_not_replaced_is_deleted():
    world = World(2)
    world.settle()
    world.template = "t2"
    world.tick(1)
    seen = world.seen()
    old = tuple(replace(p, draining_since=float(world.now)) for p in seen.pods if p.ordinal == 1)
    lease = Lease("c-1", "b", 1, 0.1, {"state": DRAINING, "connections": 0})
    view = RedisView(world.topology, {"c-1": lease})
    released = {old[0].uid: world.now - 11.0}
    first = plan(world.cluster, replace(seen, pods=old), view, "t2")
    assert not first.delete
    assert plan(world.cluster, replace(seen, pods=old), view, "t2", released=released).delete == {"c-1"}
