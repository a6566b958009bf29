# Roll-outs in which something happens meanwhile: the template changes again or goes back, pods get lost, the size
# changes, the operator or the controller is away. How much a server holds and how often clients move stays bounded.

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imhelper.core.topology import ACTIVE
from imoperator.rollout import plan
from tests.support.rollout_world import SLOTS, World

GAPS = st.integers(1, 40)


def rolling_world(replicas: int, drain_per_tick: int = 40, **rollout: int) -> World:
    """A cluster at rest whose template has just changed."""
    world = World(replicas, rollout=rollout)
    world.settle()
    world.forget_moves()
    world.drain_per_tick = drain_per_tick
    world.template = "t2"
    return world


def until(world: World, condition, limit: int = 200) -> None:
    for _ in range(limit):
        if condition():
            return
        world.tick()
    raise AssertionError(f"not within {limit} s: {world.last}")


def happen(world: World, what: str, size: int, number: int) -> None:
    if what == "template":
        world.template = f"t{number}"
    elif what == "back":
        world.template = "t1"
    elif what == "operator":
        world.restart_operator(away=size)
    elif what == "controller":
        world.no_controller_until = world.now + size
    elif what == "scale":
        world.scale(1 + size)
    elif what == "hold":
        world.hold = not world.hold


@given(
    st.sampled_from([1, 2, 3, 4, 5, 8]),
    st.lists(
        st.tuples(st.sampled_from(["template", "back", "operator", "controller", "hold"]), st.integers(0, 9), GAPS),
        max_size=5,
    ),
    st.sampled_from([1, 3, 8, 40]),
    st.tuples(GAPS, st.integers(1, 2), st.sampled_from([3, 6]), st.booleans()),
)
@settings(max_examples=60, deadline=None)
# A drain whose reason is gone while the roll-out is held: half full, the server could not take what another holds.
@example(5, [("operator", 0, 28), ("hold", 0, 1), ("back", 0, 2)], 1, (8, 1, 3, False))
def test_no_server_is_overloaded_and_nobody_moves_more_than_twice_a_change(replicas, happenings, rate, more):
    gap, surge, starts_in, counts_unavailable = more
    world = rolling_world(replicas, rate, maxSurge=surge)
    world.starts_in, world.counts_unavailable = starts_in, counts_unavailable
    world.tick(gap)
    for number, (what, size, pause) in enumerate(happenings, 3):
        happen(world, what, size, number)
        world.tick(pause)
    world.hold = False
    world.settle(3000)
    changes = 1 + sum(what in ("template", "back") for what, _, _ in happenings)
    assert world.highest <= 1.2
    assert max(world.moves.values()) <= 2 * changes


@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.sampled_from(["template", "controller"]), st.integers(0, 9), GAPS), max_size=3),
    st.tuples(st.integers(0, 5), GAPS, st.integers(0, 3)),
    st.sampled_from([1, 3, 8, 40]),
)
@settings(max_examples=40, deadline=None)
def test_with_one_server_lost_the_others_hold_no_more_than_they_must(replicas, happenings, loss, rate):
    ordinal, gap, at = loss
    world = rolling_world(replicas, rate)
    for number, (what, size, pause) in enumerate([*happenings[:at], ("", 0, gap), *happenings[at:]], 3):
        happen(world, what, size, number)
        if not what and all(world.started(p) for p in world.pods.values()):
            world.kill(ordinal % len(world.pods))
        world.tick(pause)
    world.settle(3000)
    # One is being replaced and one is lost: the others hold it all.
    assert world.highest <= max(1.2, replicas / (replicas - 1)) + replicas / SLOTS


@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.sampled_from(["template", "scale", "scale", "hold"]), st.integers(0, 5), GAPS), max_size=4),
    st.sampled_from([3, 8, 40]),
)
@settings(max_examples=40, deadline=None)
def test_a_change_of_size_in_mid_rollout_gives_no_server_too_many_slots(replicas, happenings, rate):
    world = rolling_world(replicas, rate)
    few = replicas
    for number, (what, size, pause) in enumerate(happenings, 3):
        happen(world, what, size, number)
        few = min(few, world.wanted)
        world.tick(pause)
    world.hold = False
    world.settle(3000)
    # Slots, not clients: those of a server that has come only then follow when they connect again.
    assert world.most_slots <= max(1.2 * SLOTS / few, SLOTS // few + 1)


@pytest.mark.parametrize(
    ("replicas", "gaps", "rate"), [(3, (56, 44, 35), 8), (2, (18, 47, 52), 3), (5, (38, 9, 36), 3)]
)
def test_a_template_that_changes_again_sends_nobody_to_the_few_that_are_left(replicas, gaps, rate):
    world = rolling_world(replicas, rate)
    for number, gap in enumerate(gaps, 3):
        world.tick(gap)
        world.template = f"t{number}"
    world.settle(3000)
    assert world.highest <= 1.2
    assert max(world.moves.values()) <= 2 * (1 + len(gaps))


def test_an_empty_server_below_an_outdated_one_takes_that_ones_clients():
    world = rolling_world(3)
    until(world, lambda: world.pods[1].draining_since is not None and not world.pods[1].clients)
    world.template = "t3"
    until(world, lambda: bool(world.last.leaving) and "c-3" in world.last.leaving)
    assert world.topology is not None
    shares = {s.name: world.topology.table.count(i) for i, s in enumerate(world.topology.servers)}
    assert shares == {"c-0": 43, "c-1": 42, "c-2": 43, "c-3": 0}


def test_a_server_that_may_be_taken_at_any_moment_does_not_serve_again():
    world = rolling_world(3)
    until(world, lambda: world.partition == 2 and world.pods[2].draining_since is not None)
    seen = world.seen()
    # Another pod of the top ordinal has come back with the old template: the partition has to rise again.
    pods = tuple(replace(p, revision="r1", draining_since=None) if p.ordinal == 3 else p for p in seen.pods)
    steps = plan(world.cluster, replace(seen, pods=pods), world.view(), "t2")
    assert steps.partition == 4
    assert "c-2" in steps.leaving
    assert seen.workload is not None
    raised = replace(seen, pods=pods, workload=replace(seen.workload, partition=4))
    assert "c-2" not in plan(world.cluster, raised, world.view(), "t2").leaving


def test_a_drain_that_has_begun_is_ended_also_when_its_reason_is_gone():
    world = rolling_world(3, drain_per_tick=1)
    until(world, lambda: world.pods[1].draining_since is not None)
    world.tick(5)
    assert 0 < len(world.pods[1].clients) < 43
    world.template = "t1"
    world.tick(3)
    assert world.pods[1].draining_since is not None, "half full it could not take what c-3 holds"
    world.settle(3000)
    assert world.highest <= 1.2


def test_the_surge_pod_stays_until_those_that_stay_are_back():
    world = rolling_world(2)
    until(world, lambda: 1 not in world.pods or world.pods[1].deleting)
    world.template = "t1"
    world.settle()
    assert world.highest <= 1.2


def test_a_scale_down_waits_for_servers_that_are_about_to_come():
    world = World(4)
    world.settle()
    world.kill(1)
    world.tick(2)
    world.scale(2)
    world.tick(1)
    assert world.last.leaving == {"c-3"}, "with c-0 and c-2 there are two"
    assert world.last.waiting == "server c-1 is not ready yet"
    world.settle()


def test_a_server_that_does_not_come_is_not_waited_for_longer_than_its_time():
    world = rolling_world(3, progressDeadlineSeconds=30)
    until(world, lambda: world.pods.get(2) is not None and world.pods[2].revision == "r2")
    world.pods[2].broken = True
    world.tick(5)
    world.template = "t3"
    world.tick(10)
    assert world.last.waiting == "server c-2 is not ready yet"
    assert len(world.pods[3].clients) == 42
    world.settle()
    assert {p.revision for p in world.pods.values()} == {"r3"}


def test_broken_servers_without_clients_are_replaced_at_once():
    world = World(3)
    world.bad = {"r1"}
    world.tick(20)
    world.template = "t2"
    world.settle(120)
    assert {p.revision for p in world.pods.values()} == {"r2"}


def test_a_cluster_that_grows_while_its_rollout_is_paused_uses_the_new_servers():
    world = rolling_world(2)
    until(world, lambda: world.partition == 1)
    world.hold = True
    world.tick(20)
    assert world.topology is not None
    assert len(set(world.topology.table)) == 2, "nothing moves while it is paused"
    world.scale(5)
    world.tick(20)
    assert world.topology is not None
    assert {s.name for s in world.topology.servers if s.state == ACTIVE} == {f"c-{i}" for i in range(5)}
    assert len(set(world.topology.table)) == 5
    world.hold = False
    world.settle()
