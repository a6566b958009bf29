# The small pure parts of a server: the timer wheel, the pace of a drain, frames from entries, the derived topology.
# JSON is put together by hand on the hot path, so it is parsed back here for any ids and payloads.

import base64
import json
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from imhelper.core.leases import Lease
from imhelper.core.payload import encode_message
from imhelper.core.topology import ACTIVE, DRAINING, ServerEntry, Topology
from imserver import entries
from imserver.drain import pace
from imserver.publisher import derive
from imserver.stats import Histogram
from imserver.waiting import until
from imserver.wheel import Wheel

# The wheel.


@given(st.integers(1, 12), st.integers(0, 30), st.integers(1, 40))
def test_an_item_comes_up_once_a_round_and_first_after_a_full_one(buckets, before, ticks):
    wheel: Wheel[str] = Wheel(buckets)
    for _ in range(before):
        wheel.tick(lambda item: None)
    wheel.add("x")
    seen: list[int] = []
    for tick in range(1, ticks + 1):
        wheel.tick(lambda item, tick=tick: seen.append(tick))  # type: ignore[misc]
    assert seen == [t for t in range(1, ticks + 1) if t % buckets == 0]


@given(st.lists(st.sampled_from(["add", "remove", "tick"]), max_size=60), st.integers(1, 5))
def test_what_was_removed_never_comes_up_also_when_removed_while_looking(steps, buckets):
    wheel: Wheel[int] = Wheel(buckets)
    where: dict[int, int] = {}

    def look(item: int) -> None:
        assert item in where
        if item % 3 == 0:
            wheel.remove(item, where.pop(item))

    for number, step in enumerate(steps):
        if step == "add":
            where[number] = wheel.add(number)
        elif step == "remove" and where:
            item = min(where)
            wheel.remove(item, where.pop(item))
            wheel.remove(item, 0)
        else:
            wheel.tick(look)
    left: set[int] = set()
    for _ in range(buckets):
        wheel.tick(left.add)
    assert left == set(where)


# The pace of a drain.


@given(st.floats(0.1, 1e6), st.integers(0, 10**6), st.floats(0.01, 86400))
def test_a_drain_is_never_slower_than_its_rate_and_done_in_four_fifths_of_the_timeout(rate, sockets, timeout):
    chosen = pace(rate, sockets, timeout)
    assert chosen >= rate
    assert sockets / chosen <= 0.8 * timeout * 1.000001
    assert chosen == rate or chosen == pytest.approx(sockets / (0.8 * timeout))


def test_without_a_timeout_all_go_at_once():
    assert pace(10, 5, 0) == float("inf")


# Frames from entries.

IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
MESSAGES = (
    TEXTS | st.binary(max_size=50) | st.lists(TEXTS | st.integers() | st.none(), max_size=4) | st.floats(-1e9, 1e9)
)
POS = b"1795460373.1795460373733-17"
MESSAGE_ID = b"pQ-_x"


def opened(frame: bytes) -> tuple[Opcode, bytes]:
    """The one frame that the bytes are, as a client's parser reads it."""
    protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    protocol.receive_data(frame)
    [event] = protocol.events_received()
    assert isinstance(event, Frame) and event.fin
    return event.opcode, bytes(event.data)


def envelope(frame: bytes) -> Any:
    opcode, body = opened(frame)
    assert opcode is Opcode.TEXT
    return json.loads(body)


def as_json(message: object) -> dict[str, object]:
    """How a message stands in an envelope (contract part 3)."""
    if isinstance(message, bytes):
        return {"data": base64.b64encode(message).decode(), "b64": True}
    return {"data": message}


@given(IDS, MESSAGES, st.none() | IDS)
def test_a_message_in_an_envelope_is_json_that_says_what_was_sent(sender, message, chan):
    kind, payload = encode_message(message)
    if chan is None:
        fields = [
            b"m",
            MESSAGE_ID,
            b"f",
            sender.encode(),
            b"t",
            kind.encode(),
            b"r",
            b"1",
            b"c",
            b"a\nb",
            b"p",
            payload,
        ]
    else:
        fields = [b"c", MESSAGE_ID, b"f", sender.encode(), b"t", kind.encode(), b"h", chan.encode(), b"p", payload]
    wanted = {"t": "msg", "id": MESSAGE_ID.decode(), "pos": POS.decode(), "from": sender} | as_json(message)
    assert envelope(entries.message_frame(POS, fields)) == (wanted if chan is None else wanted | {"chan": chan})


@given(MESSAGES)
def test_a_message_in_plain_mode_is_the_payload_and_nothing_else(message):
    kind, payload = encode_message(message)
    opcode = Opcode.BINARY if isinstance(message, bytes) else Opcode.TEXT
    assert opened(entries.plain_message(kind.encode(), payload)) == (opcode, payload)


@given(st.lists(IDS, min_size=1, max_size=4), IDS, MESSAGES, st.sampled_from(["d", "o"]))
def test_receipts_in_both_modes(receivers, sender, message, status):
    kind, payload = encode_message(message)
    fields = [b"r", MESSAGE_ID, b"f", "\n".join(receivers).encode(), b"c", sender.encode(), b"s", status.encode()]
    fields += [b"t", kind.encode(), b"p", payload]
    frames, rest = [], entries.receipt_frames(b"7.1-1", POS, fields)
    while rest:
        size = int.from_bytes(rest[2:4], "big") + 4 if rest[1] == 126 else rest[1] + 2
        frames.append(envelope(rest[:size]))
        rest = rest[size:]
    # Who comes back from between two must get the rest: only the last one says that all of the entry was given.
    positions = ["7.1-1"] * (len(receivers) - 1) + [POS.decode()]
    assert frames == [
        {"t": "receipt", "id": MESSAGE_ID.decode(), "to": to, "pos": pos}
        | {"status": {"d": "delivered", "o": "offline"}[status]}
        for to, pos in zip(receivers, positions, strict=True)
    ]
    assert envelope(entries.plain_receipt(fields)) == {
        "content": as_json(message)["data"],
        "receipt": {"d": "delivered", "o": "user not online"}[status],
    }


@given(IDS, IDS, st.booleans(), st.sampled_from([25.0, 0.5, 1]))
def test_hello_pong_and_move(client, server, recovered, ping):
    hello = envelope(entries.hello(client.encode(), server, POS, recovered, ping))
    assert hello == {
        "t": "hello",
        "client": client,
        "server": server,
        "pos": POS.decode(),
        "recovered": recovered,
        "ping": ping,
    }
    assert envelope(entries.pong(POS)) == {"t": "pong", "pos": POS.decode()}
    url = f"ws://{server}/ws?token=1.x"
    assert envelope(entries.move(url, POS)) == {"t": "move", "url": url, "pos": POS.decode()}


def test_a_ping_of_whole_seconds_is_a_whole_number():
    assert b'"ping":25}' in entries.hello(b"a", "s", POS, True, 25.0)


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_the_number_of_an_entry_is_what_follows_the_dash(ms, n):
    assert entries.number(b"%d-%d" % (ms, n)) == n


# The derived topology.


def lease(name: str, age: float = 0.0, state: str = ACTIVE) -> Lease:
    return Lease(name, "b", 1, age, {"url": f"ws://{name}/ws", "state": state})


def derived(*leases: Lease, old: Topology | None = None) -> Topology:
    return derive({at.name: at for at in leases}, old, 16, 1, 5.0)


def test_live_leases_become_servers_in_order_of_their_names():
    topology = derived(lease("b"), lease("a", 5.0), lease("c", 5.1), lease("d", 0, DRAINING))
    assert topology.servers == (
        ServerEntry("a", "ws://a/ws"),
        ServerEntry("b", "ws://b/ws"),
        ServerEntry("d", "ws://d/ws", DRAINING),
    )
    assert sorted(topology.table) == [0] * 8 + [1] * 8
    assert (topology.epoch, topology.slots, topology.groups) == (0, 16, 1)


def test_when_all_leases_are_dead_all_stay_for_an_empty_table_helps_nobody():
    topology = derived(lease("a", 99), lease("b", 99))
    assert [s.name for s in topology.servers] == ["a", "b"] and len(topology.table) == 16


def test_a_state_that_is_not_known_counts_as_active_and_the_epoch_is_the_old_one():
    old = derived(lease("a")).with_epoch(7)
    topology = derived(lease("a", state="puzzled"), old=old)
    assert topology.servers == (ServerEntry("a", "ws://a/ws", ACTIVE),) and topology.epoch == 7
    assert topology.table == old.table


def test_without_leases_the_table_is_empty():
    assert derived() == Topology(0, 16, 1, (), ())


# Counters and waiting.


@given(st.lists(st.floats(-1, 10), max_size=30))
def test_a_histogram_counts_each_observation_in_the_first_bucket_that_holds_it(seconds):
    histogram = Histogram((0.5, 1.0, 5.0))
    for s in seconds:
        histogram.observe(s)
    bounds = [float("-inf"), 0.5, 1.0, 5.0, float("inf")]
    assert histogram.counts == [sum(low < s <= high for s in seconds) for low, high in pairwise(bounds)]
    assert histogram.total == pytest.approx(sum(seconds))


async def test_waiting_ends_with_the_condition_or_the_time():
    calls: list[int] = []
    assert await until(lambda: cast(bool, calls.append(1)) or len(calls) > 2, 5)
    assert len(calls) == 3
    assert not await until(lambda: False, 0)
    assert not await until(lambda: False, -5)
