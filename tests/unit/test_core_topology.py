# The topology record: it survives the way to Redis and back, and nothing that stands there can crash a reader.
# Leases and the choice of a server belong to it: they decide where a client is sent.

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.leases import Lease, choose_server, live_names, matches, parse_leases
from imhelper.core.topology import ACTIVE, DRAINING, FORMAT, Limits, ServerEntry, Topology, check_slots
from imhelper.errors import TopologyError

NAMES = st.text("abcdef-.0", min_size=1, max_size=6)
SERVERS = st.lists(
    st.builds(ServerEntry, NAMES, st.just("ws://x:1/ws"), st.sampled_from([ACTIVE, DRAINING])),
    unique_by=lambda s: s.name,
)
LIMITS = st.builds(
    Limits,
    max_payload_bytes=st.integers(1, 10**9),
    retain_seconds=st.floats(1, 86400),
    grace_seconds=st.floats(0, 3600),
)


@st.composite
def topologies(draw, min_servers=0):
    servers = tuple(draw(SERVERS.filter(lambda s: len(s) >= min_servers)))
    slots = draw(st.sampled_from([16, 100, 1024]))
    table = tuple(draw(st.integers(0, len(servers) - 1)) for _ in range(4)) * (slots // 4) if servers else ()
    return Topology(draw(st.integers(0, 10**12)), slots, draw(st.sampled_from([1, 16])), servers, table, draw(LIMITS))


@given(topologies())
def test_a_record_comes_back_as_it_was(topology):
    assert Topology.from_json(topology.to_json(), topology.epoch) == topology
    assert Topology.from_json(topology.to_json().encode(), 7) == topology.with_epoch(7)


RECORD: dict[str, object] = json.loads(Topology(1, 16, 1, (ServerEntry("a", "ws://a/ws"),), (0,) * 16).to_json())


@pytest.mark.parametrize("found", [FORMAT + 2, -1, 99, "2", None, 1.5])
def test_a_foreign_format_is_refused_by_an_error_that_names_both(found):
    with pytest.raises(TopologyError, match=rf"format {found}\b.*format {FORMAT}\b"):
        Topology.from_json(json.dumps(RECORD | {"format": found}), 1)


@pytest.mark.parametrize("found", [FORMAT - 1, FORMAT, FORMAT + 1])
def test_a_neighbouring_format_with_fields_of_its_own_is_read(found):
    server = {"name": "a", "url": "ws://a/ws", "state": "active", "zone": "b"}
    record = RECORD | {"format": found, "new": 1, "servers": [server], "limits": {"new": 5, "grace_seconds": 3}}
    topology = Topology.from_json(json.dumps(record), 4)
    assert topology.servers == (ServerEntry("a", "ws://a/ws"),)
    assert topology.limits == replace(Limits(), grace_seconds=3)


NONSENSE: list[dict[str, object]] = [
    {"slots": 100},
    {"slots": 8},
    {"slots": 2048},
    {"slots": "x"},
    {"slots": None},
    {"slots": float("inf")},
    {"groups": 2},
    {"groups": float("-inf")},
    {"table": [0] * 15},
    {"table": [1] * 16},
    {"table": [-1] * 16},
    {"table": ["x"] * 16},
    {"table": [float("nan")] * 16},
    {"table": [float("inf")] * 16},
    {"table": 5},
    {"servers": []},
    {"servers": None},
    {"servers": [{"name": "a"}]},
    {"servers": ["a"]},
    {"limits": []},
    {"limits": 5},
    {"servers": [{"name": 5, "url": "ws://a/ws", "state": "active"}]},
]


@pytest.mark.parametrize(
    "raw",
    ["", "nope", "[]", "5", "null", '"x"', "{}", b"\xff", "[" * 100_000, *(json.dumps(RECORD | n) for n in NONSENSE)],
    ids=lambda r: str(r)[:40] + str(r)[-20:],
)
def test_an_unreadable_record_is_a_topology_error(raw):
    with pytest.raises(TopologyError):
        Topology.from_json(raw, 1)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(RECORD)), JSONS)
def test_no_field_of_any_type_leaks_another_error(name, value):
    try:
        Topology.from_json(json.dumps(RECORD | {name: value}), 1)
    except TopologyError:
        return


@pytest.mark.parametrize("slots", [0, 1, 15, 1025, 2048, -16])
def test_slots_must_be_in_bounds(slots):
    with pytest.raises(ValueError, match=f"not {slots}"):
        check_slots(slots)


@given(topologies(1), st.text(min_size=1, max_size=9))
def test_the_table_gives_each_client_a_server(topology, client):
    assert topology.server_of(client) in topology.servers
    assert replace(topology, servers=(), table=()).server_of(client) is None


# Leases and the choice of a server.


def lease(name: str, age: float = 0.0, **report: object) -> Lease:
    return Lease(name, "b", 1, age, report)


def test_leases_are_read_on_redis_clock_and_unreadable_ones_left_out():
    flat = [
        *(b"a", b'b1\n7\n1000\n{"url":"ws://a/ws","state":"draining","connections":3}'),
        *(b"new\xff", b"b\n1\n1\n{}"),
        *(b"x", b"b1\n7\n1000"),
        *(b"y", b"b1\nz\n1000\n{}"),
        *(b"z", b"b1\n7\n1000\n{"),
        *(b"list", b"b1\n7\n1000\n[]"),
        *(b"future", b"b2\n1\n9000\n{}"),
    ]
    leases = parse_leases(flat, 3500)
    assert set(leases) == {"a", "future"}
    a, future = leases["a"], leases["future"]
    assert (a.boot, a.beat, a.age, a.url, a.state, a.connections) == ("b1", 7, 2.5, "ws://a/ws", "draining", 3)
    assert (future.age, future.url, future.state, future.connections) == (0, "", ACTIVE, 0)


def test_live_is_who_beat_within_the_lease_and_does_not_drain():
    leases = {n.name: n for n in (lease("a", 5.0), lease("b", 5.1), lease("c", state="draining"), lease("d"))}
    assert live_names(leases, 5.0) == {"a", "d"}


@pytest.mark.parametrize("avoid", ["s1", "ws://h:1/ws", "ws://h:1/ws?token=1.abc&since=2", "ws://h:1/ws/"])
def test_a_server_is_avoided_by_its_name_and_by_any_url_of_it(avoid):
    assert matches(ServerEntry("s1", "ws://h:1/ws"), avoid)
    assert not matches(ServerEntry("s2", "ws://h:2/ws"), avoid)
    assert not matches(ServerEntry("s11", "ws://h:11/ws"), avoid)


@pytest.mark.parametrize("avoid", ["wss://chat.example/im/1/ws?token=7.x", "WSS://CHAT.example:443/im/1/ws"])
@pytest.mark.parametrize("url", ["wss://chat.example/im/1/ws", "wss://Chat.Example:443/im/1/ws"])
def test_a_url_is_known_as_a_browser_writes_it(url, avoid):
    assert matches(ServerEntry("s1", url), avoid)
    for other in ("wss://chat.example/im/2/ws", "ws://chat.example/im/1/ws", "wss://chat.example:444/im/1/ws"):
        assert not matches(ServerEntry("s2", other), avoid)


@pytest.mark.parametrize("avoid", [None, "", "nobody", "ws://[", "ws://h:99999/ws", "ws://other/ws", "?"])
def test_what_names_no_server_avoids_none(avoid):
    assert not matches(ServerEntry("s1", "ws://h:1/ws"), avoid)


def five() -> tuple[Topology, set[str]]:
    names = [f"s{i}" for i in range(5)]
    servers = tuple(ServerEntry(n, f"ws://{n}/ws") for n in names)
    return Topology(1, 16, 1, servers, tuple(i % 5 for i in range(16))), set(names)


@given(
    st.integers(0, 15), st.text(max_size=5), st.sets(st.sampled_from([f"s{i}" for i in range(5)])), st.integers(0, 5)
)
def test_a_dead_or_draining_server_is_never_given_and_the_tables_choice_wins(slot, key, dead, drains):
    topology, names = five()
    servers = tuple(replace(s, state=DRAINING) if i < drains else s for i, s in enumerate(topology.servers))
    topology = replace(topology, servers=servers)
    good = {s.name for s in servers if s.state == ACTIVE} - dead
    chosen = choose_server(topology, slot, key, names - dead)
    owner = servers[slot % 5]
    assert (chosen is None) == (not good)
    if chosen is not None:
        assert chosen.name in good
        assert chosen == owner or owner.name not in good


@given(st.integers(0, 15), st.text(max_size=5), st.integers(0, 4), st.booleans())
def test_the_avoided_server_is_given_only_when_it_is_the_only_one(slot, key, at, by_url):
    topology, names = five()
    server = topology.servers[at]
    avoid = f"{server.url}?token=x" if by_url else server.name
    assert choose_server(topology, slot, key, names, avoid) != server
    assert choose_server(topology, slot, key, {server.name}, avoid) == server


def test_clients_of_a_dead_server_go_to_all_others_and_those_of_others_stay():
    topology, names = five()
    live = names - {"s0"}
    chosen = [choose_server(topology, 0, f"client{i}", live) for i in range(4000)]
    counts = {n: sum(1 for c in chosen if c and c.name == n) for n in live}
    # Binomial with p = 1/4: ten standard deviations are 274, so this can't fail by chance.
    assert all(726 < c < 1274 for c in counts.values()), counts
    assert all(choose_server(topology, s, "x", live) == topology.servers[s % 5] for s in range(1, 5))


@given(st.text(max_size=5), st.permutations([f"s{i}" for i in range(5)]))
def test_the_rendezvous_does_not_depend_on_the_order_of_servers_and_moves_only_who_must(key, order):
    topology, names = five()
    by_name = {s.name: s for s in topology.servers}
    shuffled = replace(topology, servers=tuple(by_name[n] for n in order), table=())
    first = choose_server(shuffled, 0, key, names)
    assert first is not None and first == choose_server(replace(topology, table=()), 0, key, names)
    for dead in names - {first.name}:
        assert choose_server(shuffled, 0, key, names - {dead}) == first
