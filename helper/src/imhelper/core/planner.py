"""The table as a pure function of the servers and the old table: balanced within one slot, moving few.
Used by whoever publishes: the operator, or the elected server when the topology is `self`."""

from __future__ import annotations

from collections.abc import Sequence

from .topology import ACTIVE, ServerEntry, Topology

__all__ = ["plan_table"]


def plan_table(servers: Sequence[ServerEntry], old: Topology | None, slots: int) -> tuple[int, ...]:
    """The table for `servers` (indexes into them), derived from the old topology.

    Active servers get slots//k or slots//k + 1 slots each; of all such tables it is one that moves the fewest
    slots, and it is the same whoever computes it. Without an active server the table keeps what it can: slots stay
    with draining servers that are still listed, so that nothing moves twice; with no server at all it is empty.
    """
    candidates = [i for i, s in enumerate(servers) if s.state == ACTIVE] or list(range(len(servers)))
    if not candidates:
        return ()
    index = {servers[i].name: i for i in candidates}
    owner: list[int | None] = [None] * slots
    if old is not None and old.slots == slots and old.table:
        for slot, at in enumerate(old.table):
            owner[slot] = index.get(old.servers[at].name)
    held: dict[int, list[int]] = {i: [] for i in candidates}
    for slot, kept in enumerate(owner):
        if kept is not None:
            held[kept].append(slot)
    base, extra = divmod(slots, len(candidates))
    # The servers that hold most keep the odd slots: that is what makes the number of moves minimal.
    by_load = sorted(candidates, key=lambda i: (-len(held[i]), servers[i].name))
    quota = {i: base + (rank < extra) for rank, i in enumerate(by_load)}
    free = [slot for slot, kept in enumerate(owner) if kept is None]
    for i in by_load:
        free.extend(held[i][quota[i] :])
        del held[i][quota[i] :]
    free.sort(reverse=True)
    for i in sorted(candidates, key=lambda i: servers[i].name):
        while len(held[i]) < quota[i]:
            held[i].append(free.pop())
    table = [0] * slots
    for i, mine in held.items():
        for slot in mine:
            table[slot] = i
    return tuple(table)
