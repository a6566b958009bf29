# Scaling and roll-outs against a small model of Kubernetes: its StatefulSet controller, pods that start and drain,
# clients that follow the table. The laws: no pod with clients is taken, nobody moves more than twice, no server is
# overloaded, and it always comes to rest.

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imhelper.core.leases import Lease
from imhelper.core.topology import ACTIVE, DRAINING, Topology
from imoperator.fleet import next_topology
from imoperator.model import Cluster, Pod, RedisView, Seen, Workload
from imoperator.names import Key
from imoperator.rollout import Plan, plan
from imoperator.spec import parse_spec

SLOTS = 128


def make_cluster(replicas: int, **more) -> Cluster:
    spec = parse_spec({"replicas": replicas, "slots": SLOTS, "redis": {"url": "redis://r"}, **more})
    return Cluster(Key("ns", "c"), "uid", 1, spec)


@dataclass
class Machine:
    """One pod of the model, with the slots of the clients that it holds: one client a slot."""

    uid: str
    revision: str
    created: int
    clients: set[int] = field(default_factory=set)
    draining_since: float | None = None
    deleting: bool = False
    broken: bool = False


class World:
    """The StatefulSet controller, pods and clients; `tick` is a second, `operate` one pass of the operator."""

    def __init__(self, replicas: int, **spec) -> None:
        self.cluster = make_cluster(replicas, **spec)
        self.template = "t1"
        self.applied = "t1"
        self.revision = {"t1": "r1"}
        self.replicas = self.partition = replicas
        self.current = "r1"
        self.now = 1000
        self.pods: dict[int, Machine] = {}
        self.count = 0
        self.topology: Topology | None = None
        self.admitted: dict[str, str] = {}
        self.moves = dict.fromkeys(range(SLOTS), 0)
        self.highest = 0.0
        self.last = Plan(replicas, replicas)
        self.bad: set[str] = set()
        self.drain_per_tick = 40
        self.most_draining = 0

    @property
    def update(self) -> str:
        return self.revision[self.applied]

    def ready(self, pod: Machine) -> bool:
        return not pod.broken and not pod.deleting and self.now - pod.created >= 3

    def state_of(self, name: str) -> str | None:
        return next((s.state for s in self.topology.servers if s.name == name), None) if self.topology else None

    def seen(self) -> Seen:
        pods = [
            Pod(
                name=f"c-{i}",
                ordinal=i,
                uid=p.uid,
                revision=p.revision,
                created=p.created,
                ready=self.ready(p) and self.state_of(f"c-{i}") != DRAINING,
                deleting_since=self.now if p.deleting else None,
                serving=p.draining_since is None,
                draining_since=p.draining_since,
            )
            for i, p in sorted(self.pods.items())
        ]
        work = Workload(self.replicas, self.partition, self.applied, 1, "spec", self.current, self.update, True)
        return Seen(self.now, tuple(pods), work)

    def view(self) -> RedisView:
        leases = {}
        for i, pod in self.pods.items():
            if pod.broken or self.now - pod.created < 2:
                continue
            name = f"c-{i}"
            draining = self.state_of(name) == DRAINING
            report = {"state": DRAINING if draining else ACTIVE, "connections": len(pod.clients)}
            leases[name] = Lease(name, pod.uid, self.now, 0.1, report | {"drain": "topology" if draining else ""})
        return RedisView(self.topology, leases)

    def operate(self, hold: bool = False) -> None:
        seen, view = self.seen(), self.view()
        steps = self.last = plan(self.cluster, seen, view, self.template, hold=hold)
        self.applied = self.template
        self.revision.setdefault(self.applied, f"r{len(self.revision) + 1}")
        self.replicas, self.partition = steps.replicas, steps.partition
        for i, pod in self.pods.items():
            leaving = f"c-{i}" in steps.leaving
            if leaving and pod.draining_since is None:
                pod.draining_since = self.now
            elif not leaving:
                pod.draining_since = None
        new = next_topology(self.cluster, seen, view, steps.leaving, admitted=self.admitted, rolling=steps.rolling)
        if new is not None:
            self.topology = new.with_epoch((self.topology.epoch if self.topology else 0) + 1)
        active = {s.name for s in self.topology.servers if s.state == ACTIVE} if self.topology else set()
        self.admitted = {p.name: p.uid for p in seen.pods if p.name in active or self.admitted.get(p.name) == p.uid}

    def controller(self) -> None:
        for i in [i for i, p in self.pods.items() if p.deleting]:
            del self.pods[i]
        for i in [i for i in self.pods if i >= self.replicas]:
            self.take(i)
        for i in range(self.replicas):
            if i not in self.pods:
                revision = self.current if i < self.partition else self.update
                self.count += 1
                self.pods[i] = Machine(f"u{self.count}", revision, self.now, broken=revision in self.bad)
        for i in range(self.replicas - 1, self.partition - 1, -1):
            pod = self.pods[i]
            if pod.revision != self.update and not pod.deleting:
                self.take(i)
                break
            if not self.ready(pod):
                break
        whole = [p for p in self.pods.values() if p.revision == self.update and self.ready(p)]
        if len(whole) == len(self.pods) == self.replicas:
            self.current = self.update

    def take(self, ordinal: int) -> None:
        pod = self.pods[ordinal]
        waited = pod.draining_since is not None and self.now - pod.draining_since > 300
        assert not pod.clients or waited, f"c-{ordinal} was taken with {len(pod.clients)} clients"
        pod.deleting = True

    def clients(self) -> None:
        """Clients of draining servers move to where the table sends them; those without a server connect."""
        self.most_draining = max(
            self.most_draining,
            sum(self.state_of(f"c-{i}") == DRAINING and bool(p.clients) for i, p in self.pods.items()),
        )
        if not self.topology or not self.topology.table:
            return
        held = {slot for p in self.pods.values() for slot in p.clients}
        for slot in set(range(SLOTS)) - held:
            self.connect(slot)
        for i, pod in self.pods.items():
            if self.state_of(f"c-{i}") == DRAINING:
                for slot in sorted(pod.clients)[: self.drain_per_tick]:
                    if self.connect(slot):
                        pod.clients.discard(slot)
                        self.moves[slot] += 1
        most = max((len(p.clients) for p in self.pods.values()), default=0)
        if self.cluster.spec.replicas:
            self.highest = max(self.highest, most / (SLOTS / self.cluster.spec.replicas))

    def connect(self, slot: int) -> bool:
        server = self.topology.server_of_slot(slot) if self.topology else None
        assert server is not None
        ordinal = int(server.name.rpartition("-")[2])
        if server.state != ACTIVE or ordinal not in self.pods or not self.ready(self.pods[ordinal]):
            return False
        self.pods[ordinal].clients.add(slot)
        return True

    def tick(self, seconds: int = 1, hold: bool = False) -> None:
        for _ in range(seconds):
            self.now += 1
            self.operate(hold)
            self.controller()
            self.clients()

    def at_rest(self) -> bool:
        wanted = self.cluster.spec.replicas
        pods = self.pods.values()
        servers = self.topology.servers if self.topology else ()
        return (
            len(self.pods) == self.replicas == self.partition == wanted
            and not self.last.rolling
            and all(p.revision == self.update and self.ready(p) for p in pods)
            and all(p.draining_since is None for p in pods)
            and {(s.name, s.state) for s in servers} == {(f"c-{i}", ACTIVE) for i in self.pods}
        )

    def settle(self, limit: int = 600) -> None:
        for _ in range(limit):
            self.tick()
            if self.at_rest():
                break
        else:
            raise AssertionError(f"not at rest after {limit} s: {self.last}")
        before = (self.topology, self.replicas, self.partition)
        self.tick(3)
        assert (self.topology, self.replicas, self.partition) == before, "at rest nothing changes"

    def scale(self, replicas: int) -> None:
        self.cluster = replace(self.cluster, spec=replace(self.cluster.spec, replicas=replicas))

    def forget_moves(self) -> None:
        self.moves = dict.fromkeys(range(SLOTS), 0)
        self.highest = 0.0


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
    assert world.state_of("c-0") == DRAINING and len(world.pods) == 2
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
    for _ in range(30):
        world.tick(1, hold=True)
        assert not world.last.rolling, "people are not told of a roll-out that waits"
    assert {i: p.uid for i, p in world.pods.items()} == uids
    assert world.last.outdated == 3
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
