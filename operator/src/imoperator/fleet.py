"""Which servers the table knows and which slots each gets: a pure function of pods, leases and the table in force.
Readiness admits a server and never removes it; a dead lease, a drain or a deleted pod does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil

from imhelper.core.leases import Lease
from imhelper.core.planner import plan_table
from imhelper.core.topology import ACTIVE, DRAINING, Limits, ServerEntry, Topology

from .model import Cluster, Pod, RedisView, Seen
from .routes import server_url

__all__ = ["block_table", "ends_itself", "limits_of", "next_topology"]


def limits_of(cluster: Cluster) -> Limits:
    """The settings that helpers and servers must agree on."""
    server = cluster.spec.server
    return Limits(
        max_payload_bytes=server.max_payload_bytes,
        retain_seconds=server.retain_seconds,
        retain_entries=server.retain_entries,
        retain_bytes=server.retain_bytes,
        grace_seconds=server.grace_seconds,
        lease_seconds=server.lease_seconds,
        max_sockets_per_client=server.max_sockets_per_client,
    )


def ends_itself(lease: Lease) -> bool:
    """Whether a server drains because it was told to end, and not because the table says so."""
    return lease.state == DRAINING and lease.report.get("drain") != "topology"


def _entries(
    cluster: Cluster, seen: Seen, view: RedisView, leaving: Collection[str], admitted: Mapping[str, str]
) -> list[ServerEntry]:
    known = {s.name for s in view.topology.servers if s.state == ACTIVE} if view.topology else set()
    found = []
    for pod in sorted(seen.pods, key=lambda p: p.ordinal):
        lease = view.leases.get(pod.name)
        url = server_url(cluster, pod.ordinal, seen.node_ports)
        if url is None or pod.finished or pod.name in view.dead:
            continue
        was_admitted = admitted.get(pod.name) == pod.uid
        if lease is None and not (pod.name in known and was_admitted):
            # It is not there yet, or has said goodbye; an active one that Redis forgot has a lease's time to return.
            continue
        if pod.name in leaving or pod.deleting_since is not None or (lease is not None and ends_itself(lease)):
            found.append(ServerEntry(pod.name, url, DRAINING))
        elif was_admitted or pod.ready:
            found.append(ServerEntry(pod.name, url, ACTIVE))
    return found


def block_table(
    servers: list[ServerEntry], old: Topology, preferred: Collection[str], last: Collection[str], wanted: int
) -> tuple[int, ...] | None:
    """The table in a roll-out: what stays, stays; a leaving server's slots go as one block to the emptiest new server.

    `preferred` are the new servers, `last` those of them that leave again at the end, taken only when no other is as
    empty. `wanted` is how many servers there are at rest: a block that would load each new server beyond 1.2 times
    their mean goes to the emptiest old one; if it is too much for that one too, it is spread, first over the new ones.
    None when there is nobody to take the slots.
    """
    active = {s.name: i for i, s in enumerate(servers) if s.state == ACTIVE}
    if not active or not old.table:
        return None
    limit = max(ceil(old.slots / max(1, wanted)), 6 * old.slots // (5 * max(1, wanted)))
    count = dict.fromkeys(active, 0)
    homeless: dict[str, list[int]] = {}
    table = [0] * old.slots

    def emptiest(room: int) -> str | None:
        """The best server for `room` slots more; None when that is too much for each."""
        fit = [n for n in active if count[n] + room <= limit]
        return min(fit, key=lambda n: (n not in preferred, count[n], n in last, active[n]), default=None)

    for slot, at in enumerate(old.table):
        name = old.servers[at].name
        if name in active:
            table[slot] = active[name]
            count[name] += 1
        else:
            homeless.setdefault(name, []).append(slot)
    for name in sorted(homeless):
        block = homeless[name]
        taker = emptiest(len(block))
        for slot in block:
            to = taker or emptiest(1) or min(active, key=lambda n: (count[n], active[n]))
            count[to] += 1
            table[slot] = active[to]
    return tuple(table)


def next_topology(
    cluster: Cluster,
    seen: Seen,
    view: RedisView,
    leaving: Collection[str],
    *,
    admitted: Mapping[str, str],
    blocks: bool = False,
    groups: int = 1,
) -> Topology | None:
    """The topology to publish, or None when the one in force is right.

    `leaving` are the pods to drain, `admitted` the uid of each pod that was let in; `blocks` moves them in blocks.
    A table with active servers is never replaced by one without while their pods exist and nobody wants them to leave.
    """
    old = view.topology
    slots, groups = (old.slots, old.groups) if old else (cluster.spec.slots, groups)
    servers = _entries(cluster, seen, view, leaving, admitted)
    if old is not None and _would_empty(servers, old, seen.pods, leaving):
        return None
    if old is None and not servers:
        return _empty(cluster, slots, groups)
    table = None
    if blocks and old is not None:
        revision = seen.workload.update_revision if seen.workload else ""
        updated = {p.name for p in seen.pods if p.revision == revision}
        surge = {p.name for p in seen.pods if p.ordinal >= cluster.spec.replicas}
        table = block_table(servers, old, updated, surge, cluster.spec.replicas)
    if table is None:
        table = plan_table(servers, old, slots)
    new = Topology(old.epoch if old else 0, slots, groups, tuple(servers), table, limits_of(cluster))
    if old is not None and (old.servers, old.table, old.limits) == (new.servers, new.table, new.limits):
        return None
    return new


def _would_empty(servers: list[ServerEntry], old: Topology, pods: tuple[Pod, ...], leaving: Collection[str]) -> bool:
    if any(s.state == ACTIVE for s in servers):
        return False
    pod_names = {p.name for p in pods if not p.finished and p.name not in leaving}
    return any(s.state == ACTIVE and s.name in pod_names for s in old.servers)


def _empty(cluster: Cluster, slots: int, groups: int) -> Topology:
    """The first topology, before any server has come: servers wait for one, since it tells them the slots."""
    return Topology(0, slots, groups, (), (), limits_of(cluster))
