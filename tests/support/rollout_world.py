# A small model of Kubernetes for the operator's decisions: the StatefulSet controller, pods that start and drain,
# clients that follow the table. One client a slot, so that shares of clients are shares of slots.

from dataclasses import dataclass, field, replace
from typing import Any

from imhelper.core.leases import Lease
from imhelper.core.topology import ACTIVE, DRAINING, Topology
from imoperator.fleet import next_topology
from imoperator.model import Cluster, Pod, RedisView, Seen, Workload
from imoperator.names import Key
from imoperator.patience import Patience
from imoperator.rollout import Plan, plan
from imoperator.spec import parse_spec

SLOTS = 128


def make_cluster(replicas: int, **more: Any) -> Cluster:
    spec = parse_spec({"replicas": replicas, "slots": SLOTS, "redis": {"url": "redis://r"}, **more})
    return Cluster(Key("ns", "c"), "uid", 1, spec)


@dataclass
class Machine:
    """One pod of the model, with the slots of the clients that it holds."""

    uid: str
    revision: str
    created: int
    clients: set[int] = field(default_factory=set)
    draining_since: float | None = None
    deleting: bool = False
    broken: bool = False
    # When its readiness changed last, if it was ready once.
    changed: float | None = None
    was_ready: bool = False


class World:
    """`tick` is a second: the operator looks and acts, then the StatefulSet's controller, then the clients.

    What the controller does is what Kubernetes' own does with `Parallel` and a partition: a pod that is missing is
    made of the update revision from the partition on and of the current one below it; from the top, one outdated pod
    is deleted if all above it are ready; the current revision follows when all pods are updated and ready.
    """

    def __init__(self, replicas: int, **spec: Any) -> None:
        self.cluster = make_cluster(replicas, **spec)
        self.template = "t1"
        self.applied = self.observed = "t1"
        self.revision = {"t1": "r1"}
        self.replicas = self.partition = replicas
        self.current = "r1"
        self.now = 1000
        self.pods: dict[int, Machine] = {}
        self.count = 0
        self.topology: Topology | None = None
        self.admitted: dict[str, str] = {}
        self.released: dict[str, float] = {}
        self.patience = Patience()
        self.moves = dict.fromkeys(range(SLOTS), 0)
        self.highest, self.most_slots = 0.0, 0
        self.last = Plan(replicas, replicas)
        self.bad: set[str] = set()
        self.drain_per_tick = 40
        self.starts_in = 3
        self.most_draining = 0
        self.hold = False
        # Until when the operator and the controller do nothing, because they are away or slow.
        self.no_operator_until = self.no_controller_until = 0
        # Newer controllers count every pod that is not ready, also those below the partition.
        self.counts_unavailable = False

    @property
    def update(self) -> str:
        return self.revision[self.observed]

    @property
    def wanted(self) -> int:
        return self.cluster.spec.replicas

    def started(self, pod: Machine) -> bool:
        return not pod.broken and not pod.deleting and self.now - pod.created >= self.starts_in

    def ready(self, ordinal: int) -> bool:
        """As the readiness probe sees it: a server that drains is not ready."""
        return self.started(self.pods[ordinal]) and self.state_of(ordinal) != DRAINING

    def state_of(self, ordinal: int) -> str | None:
        servers = self.topology.servers if self.topology else ()
        return next((s.state for s in servers if s.name == f"c-{ordinal}"), None)

    def seen(self) -> Seen:
        pods = [
            Pod(
                name=f"c-{i}",
                ordinal=i,
                uid=p.uid,
                revision=p.revision,
                created=p.created,
                ready=self.ready(i),
                deleting_since=self.now if p.deleting else None,
                serving=p.draining_since is None,
                draining_since=p.draining_since,
                changed=p.changed,
            )
            for i, p in sorted(self.pods.items())
        ]
        current = self.applied == self.observed
        work = Workload(self.replicas, self.partition, self.applied, 1, "spec", self.current, self.update, current)
        return self.patience.note(self.cluster, Seen(self.now, tuple(pods), work))

    def view(self) -> RedisView:
        leases = {}
        for i, pod in self.pods.items():
            if pod.broken or self.now - pod.created < 2:
                continue
            name = f"c-{i}"
            draining = self.state_of(i) == DRAINING
            report = {"state": DRAINING if draining else ACTIVE, "connections": len(pod.clients)}
            leases[name] = Lease(name, pod.uid, self.now, 0.1, report | {"drain": "topology" if draining else ""})
        return RedisView(self.topology, leases)

    def operate(self) -> None:
        seen, view = self.seen(), self.view()
        steps = plan(self.cluster, seen, view, self.template, hold=self.hold, released=self.released)
        self.last = steps
        free = {p.uid for p in seen.pods if p.revision != self.update and p.ordinal >= steps.partition}
        self.released = {uid: self.released.get(uid, seen.at) for uid in free}
        self.applied = self.template
        self.revision.setdefault(self.applied, f"r{len(self.revision) + 1}")
        self.replicas, self.partition = steps.replicas, steps.partition
        for i, pod in self.pods.items():
            leaving = f"c-{i}" in steps.leaving
            if leaving and pod.draining_since is None:
                pod.draining_since = self.now
            elif not leaving:
                pod.draining_since = None
            if f"c-{i}" in steps.delete:
                self.take(i)
        new = next_topology(self.cluster, seen, view, steps.leaving, admitted=self.admitted, blocks=steps.blocks)
        if new is not None:
            self.topology = new.with_epoch((self.topology.epoch if self.topology else 0) + 1)
        active = {s.name for s in self.topology.servers if s.state == ACTIVE} if self.topology else set()
        self.admitted = {p.name: p.uid for p in seen.pods if p.name in active or self.admitted.get(p.name) == p.uid}

    def restart_operator(self, away: int = 0) -> None:
        """Another process takes over after `away` seconds: what it knows is in Kubernetes and Redis."""
        self.no_operator_until = self.now + away
        self.released, self.patience = {}, Patience()
        known = {s.name for s in self.topology.servers} if self.topology else set()
        self.admitted = {f"c-{i}": p.uid for i, p in self.pods.items() if f"c-{i}" in known}

    def controller(self) -> None:
        self.observed = self.applied
        for i in [i for i in self.pods if i >= self.replicas]:
            self.take(i)
        for i in range(self.replicas):
            if i not in self.pods:
                revision = self.current if i < self.partition else self.update
                self.count += 1
                self.pods[i] = Machine(f"u{self.count}", revision, self.now, broken=revision in self.bad)
        unavailable = sum(not self.ready(i) for i in range(self.replicas))
        if not self.counts_unavailable or unavailable == 0:
            for i in range(self.replicas - 1, self.partition - 1, -1):
                pod = self.pods[i]
                if pod.revision != self.update and not pod.deleting:
                    self.take(i)
                    break
                if not self.ready(i):
                    break
        whole = [i for i, p in self.pods.items() if p.revision == self.update and self.ready(i)]
        if len(whole) == len(self.pods) == self.replicas:
            self.current = self.update

    def take(self, ordinal: int) -> None:
        pod = self.pods[ordinal]
        waited = pod.draining_since is not None and self.now - pod.draining_since > 300
        assert not pod.clients or waited, f"c-{ordinal} was taken with {len(pod.clients)} clients"
        pod.deleting = True

    def kill(self, ordinal: int) -> bool:
        """A crash: its clients are gone without being asked, which is not the operator's doing."""
        return self.pods.pop(ordinal, None) is not None

    def clients(self) -> None:
        """Clients of draining servers move to where the table sends them; those without a server connect."""
        self.most_draining = max(
            self.most_draining,
            sum(self.state_of(i) == DRAINING and bool(p.clients) for i, p in self.pods.items()),
        )
        if not self.topology or not self.topology.table:
            return
        held = {slot for p in self.pods.values() for slot in p.clients}
        for slot in set(range(SLOTS)) - held:
            self.connect(slot)
        for i, pod in self.pods.items():
            if self.state_of(i) == DRAINING:
                for slot in sorted(pod.clients)[: self.drain_per_tick]:
                    if self.connect(slot):
                        pod.clients.discard(slot)
                        self.moves[slot] += 1
        most = max((len(p.clients) for p in self.pods.values()), default=0)
        self.most_slots = max(self.most_slots, *(self.topology.table.count(at) for at in set(self.topology.table)))
        if self.wanted:
            self.highest = max(self.highest, most / (SLOTS / self.wanted))

    def connect(self, slot: int) -> bool:
        server = self.topology.server_of_slot(slot) if self.topology else None
        assert server is not None
        ordinal = int(server.name.rpartition("-")[2])
        if server.state != ACTIVE or ordinal not in self.pods or not self.ready(ordinal):
            return False
        self.pods[ordinal].clients.add(slot)
        return True

    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1
            for i in [i for i, p in self.pods.items() if p.deleting]:
                del self.pods[i]
            for i, pod in self.pods.items():
                if self.ready(i) != pod.was_ready:
                    pod.was_ready, pod.changed = not pod.was_ready, self.now
            if self.now > self.no_operator_until:
                self.operate()
            if self.now > self.no_controller_until:
                self.controller()
            self.clients()

    def at_rest(self) -> bool:
        pods = self.pods.values()
        servers = self.topology.servers if self.topology else ()
        return (
            len(self.pods) == self.replicas == self.partition == self.wanted
            and not self.last.rolling
            and all(p.revision == self.update and self.ready(i) for i, p in self.pods.items())
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
        self.highest, self.most_slots = 0.0, 0
