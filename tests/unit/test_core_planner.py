# The table's laws: balanced within one slot, as few moves as possible, the same whoever computes it.
# The least number of moves is found by a second way (a bound that is reached), not by asking the planner.

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.planner import plan_table
from imhelper.core.topology import ACTIVE, DRAINING, ServerEntry, Topology

SLOTS = st.sampled_from([16, 100, 128])
NAMES = [f"s{i:02}" for i in range(24)]


def entries(names, draining=()) -> tuple[ServerEntry, ...]:
    return tuple(ServerEntry(n, f"ws://{n}/ws", DRAINING if n in draining else ACTIVE) for n in names)


@st.composite
def situations(draw):
    """An old topology, reached or arbitrary, and the servers of now."""
    slots = draw(SLOTS)
    before = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=20))
    now = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=20))
    draining = draw(st.sets(st.sampled_from(NAMES), max_size=6))
    old = None
    if before:
        table = draw(st.lists(st.integers(0, len(before) - 1), min_size=slots, max_size=slots))
        old = Topology(1, slots, 1, entries(before), tuple(table))
        if draw(st.booleans()):
            old = replace(old, table=plan_table(old.servers, None, slots))
    return slots, old, entries(now, draining)


def owners(servers, table) -> list[str]:
    return [servers[i].name for i in table]


def fewest_moves(slots: int, old: Topology, names: set[str]) -> int:
    """Slots that stay are at most what each server held, cut to its share; the largest holders get the odd slots."""
    held: Counter[str] = Counter(n for n in owners(old.servers, old.table) if n in names)
    base, extra = divmod(slots, len(names))
    shares = sorted((held[n] for n in names), reverse=True)
    return slots - sum(min(h, base + (i < extra)) for i, h in enumerate(shares))


@given(situations())
def test_the_table_is_balanced_over_the_active_servers_and_moves_the_fewest(situation):
    slots, old, servers = situation
    table = plan_table(servers, old, slots)
    if not servers:
        assert table == ()
        return
    active = {s.name for s in servers if s.state == ACTIVE} or {s.name for s in servers}
    counts: Counter[str] = Counter(owners(servers, table))
    assert len(table) == slots and set(counts) <= active
    assert max(counts.values()) - min(counts[n] for n in active) <= 1
    if old is not None:
        moved = sum(a != b for a, b in zip(owners(old.servers, old.table), owners(servers, table), strict=True))
        assert moved == fewest_moves(slots, old, active)


@given(situations(), st.randoms())
def test_the_table_does_not_depend_on_the_order_of_servers(situation, random):
    slots, old, servers = situation
    shuffled = list(servers)
    random.shuffle(shuffled)
    assert owners(servers, plan_table(servers, old, slots)) == owners(shuffled, plan_table(shuffled, old, slots))


@given(situations())
def test_planning_again_moves_nothing(situation):
    slots, old, servers = situation
    table = plan_table(servers, old, slots)
    assert plan_table(servers, Topology(2, slots, 1, servers, table), slots) == table


def test_a_table_of_another_size_is_planned_anew():
    servers = entries(["a", "b"])
    assert len(plan_table(servers, Topology(1, 16, 1, servers, (0,) * 16), 64)) == 64


def test_a_server_that_only_drains_gives_all_away_when_another_is_active_and_keeps_all_when_none_is():
    old = Topology(1, 16, 1, entries(["a", "b"]), plan_table(entries(["a", "b"]), None, 16))
    assert set(owners(entries("ab", "a"), plan_table(entries("ab", "a"), old, 16))) == {"b"}
    assert plan_table(entries("ab", "ab"), old, 16) == old.table


def test_more_servers_than_slots_is_legal():
    table = plan_table(entries(NAMES), None, 16)
    assert len(set(table)) == 16
