# The chaos runner's judge against ledgers made by hand: it must see what is wrong, and excuse only what may be.
# A judge that finds nothing in a broken run would make every run a good one.

import pytest

from tests.chaos.ledger import Change, Client, Connection, DeviceBook, Fault, Ledger, Receipt, Send
from tests.chaos.verdict import Judge

LEASE, GRACE = 3.0, 6.0
ENVELOPE, PLAIN = BOTH = 0, 1


@pytest.fixture
def ledger() -> Ledger:
    """Two clients, one of each mode, connected since 10.0 and online since 9.9; nothing sent yet."""
    made = Ledger()
    for number, envelope in ((ENVELOPE, True), (PLAIN, False)):
        client = Client(number, f"c{number}", envelope)
        book = DeviceBook(number, envelope)
        book.connections.append(Connection("ws://s0/ws", 10.0, False if envelope else None, False))
        client.devices.append(book)
        made.clients.append(client)
        made.events[number] = [(9.9, "on")]
    return made


def book_of(ledger: Ledger, number: int) -> DeviceBook:
    return ledger.clients[number].devices[0]


def send(ledger: Ledger, uid: int, *receivers: int, at: float = 20.0, chan: str | None = None, receipt: bool = False):
    made = ledger.sends[uid] = Send(uid, 1 - receivers[0] if receivers else 0, receivers, chan, receipt, at, at + 0.1)
    made.ids.add(f"id{uid}")
    return made


def arrive(ledger: Ledger, number: int, *uids: int, tag: int = 0) -> None:
    for uid in uids:
        book_of(ledger, number).took(uid, f"id{uid}" if number == ENVELOPE else None, tag)


def wrong(ledger: Ledger) -> dict[str, int]:
    return {column: n for column, n in Judge(ledger, LEASE, GRACE).verdict().wrong.items() if n}


def reconnect(
    ledger: Ledger, number: int, closed: float, opened: float, *, recovered: bool | None = None, code: int = 1012
):
    book = book_of(ledger, number)
    book.connections[-1].closed, book.connections[-1].code = closed, code
    since = number == ENVELOPE
    book.connections.append(Connection("ws://s1/ws", opened, recovered if since else None, since))


@pytest.mark.parametrize("number", BOTH)
def test_all_is_well(ledger, number):
    send(ledger, 1, number)
    arrive(ledger, number, 1)
    verdict = Judge(ledger, LEASE, GRACE).verdict()
    assert not any(verdict.wrong.values())
    assert (verdict.counts["accepted"], verdict.counts["delivered"]) == (1, 1)


@pytest.mark.parametrize("number", BOTH)
def test_a_message_that_never_came_is_lost(ledger, number):
    send(ledger, 1, number)
    assert wrong(ledger) == {"lost": 1}


@pytest.mark.parametrize("number", BOTH)
def test_a_message_of_the_time_between_two_sockets_is_due(ledger, number):
    reconnect(ledger, number, 19.0, 22.0, recovered=True)
    send(ledger, 1, number, at=20.0)
    assert wrong(ledger) == {"lost": 1}


def test_a_message_that_was_not_accepted_is_not_due(ledger):
    send(ledger, 1, ENVELOPE).ended = None
    assert wrong(ledger) == {}


def test_a_plain_client_that_was_offline_is_due_nothing(ledger):
    reconnect(ledger, PLAIN, 19.0, 40.0)
    ledger.events[PLAIN] += [(25.5, "off"), (39.9, "on")]
    send(ledger, 1, PLAIN, at=30.0)
    assert wrong(ledger) == {}


def test_what_a_cut_socket_was_given_may_be_missing_to_a_plain_client_only(ledger):
    for number in BOTH:
        reconnect(ledger, number, 20.05, 21.0, recovered=True, code=1006)
        book_of(ledger, number).connections[0].orderly = False
        send(ledger, number + 1, number, at=20.0)
    assert wrong(ledger) == {"lost": 1}


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("opened", [29.5, 22.5], ids=["just before it was cut", "long before it was cut"])
def test_so_may_what_was_replayed_to_a_socket_just_before_it_was_cut(ledger, number, opened):
    reconnect(ledger, number, 19.0, opened, recovered=True)
    reconnect(ledger, number, 30.0, 31.0, recovered=True, code=1006)
    book_of(ledger, number).connections[1].orderly = False
    send(ledger, 1, number, at=20.0)
    assert wrong(ledger) == ({} if number == PLAIN and opened > 29 else {"lost": 1})


@pytest.mark.parametrize("number", BOTH)
def test_so_may_what_was_replayed_to_a_handshake_that_its_client_had_given_up(ledger, number):
    reconnect(ledger, number, 19.0, 24.0, recovered=True)
    send(ledger, 1, number, at=20.0)
    book_of(ledger, number).given_up.append(15.0)
    assert wrong(ledger) == {"lost": 1}
    book_of(ledger, number).given_up.append(23.0)
    assert wrong(ledger) == ({} if number == PLAIN else {"lost": 1})


def test_a_cut_later_on_excuses_nothing_that_a_connected_client_should_have_had(ledger):
    reconnect(ledger, PLAIN, 29.0, 29.5)
    reconnect(ledger, PLAIN, 30.0, 31.0, code=1006)
    book_of(ledger, PLAIN).connections[1].orderly = False
    send(ledger, 1, PLAIN, at=20.0)
    assert wrong(ledger) == {"lost": 1}


@pytest.mark.parametrize("number", BOTH)
def test_order_and_repeats_on_one_socket(ledger, number):
    send(ledger, 1, number, at=20.0)
    send(ledger, 2, number, at=21.0)
    arrive(ledger, number, 2, 1)
    # Once for the device, once for its only connection.
    assert wrong(ledger) == {"out of order": 2}
    arrive(ledger, number, 1)
    assert wrong(ledger)["duplicates"] == 1


@pytest.mark.parametrize("number", BOTH)
def test_order_and_repeats_around_a_loss_are_counted_apart(ledger, number):
    send(ledger, 1, number, at=20.0)
    send(ledger, 2, number, at=21.0)
    arrive(ledger, number, 2, 1, 1)
    ledger.losses.append(21.5)
    verdict = Judge(ledger, LEASE, GRACE).verdict()
    assert not any(verdict.wrong.values())
    assert verdict.counts["out of order around a loss of Redis"] == 3
    assert verdict.counts["repeats that Redis forgot"] == 1
    ledger.losses[0] = 60.0
    assert wrong(ledger) == {"out of order": 3, "duplicates": 1}


def test_sends_that_overlap_have_no_order(ledger):
    send(ledger, 1, ENVELOPE, at=20.0)
    send(ledger, 2, ENVELOPE, at=20.05)
    arrive(ledger, ENVELOPE, 2, 1)
    assert wrong(ledger) == {}


def test_a_repeat_after_a_reconnect_is_none(ledger):
    send(ledger, 1, ENVELOPE)
    arrive(ledger, ENVELOPE, 1)
    reconnect(ledger, ENVELOPE, 21.0, 22.0, recovered=True)
    arrive(ledger, ENVELOPE, 1, tag=1)
    assert wrong(ledger) == {}


def test_two_ids_for_one_message_are_a_duplicate(ledger):
    send(ledger, 1, ENVELOPE)
    arrive(ledger, ENVELOPE, 1)
    book_of(ledger, ENVELOPE).took(1, "another", 0)
    assert wrong(ledger) == {"duplicates": 1}


def test_a_gap_without_a_loss_is_wrong_and_with_one_excuses(ledger):
    send(ledger, 1, ENVELOPE, at=20.0)
    reconnect(ledger, ENVELOPE, 21.0, 22.0, recovered=False, code=4002)
    assert wrong(ledger) == {"lost": 1, "gaps": 2}
    ledger.losses.append(20.5)
    assert wrong(ledger) == {}


def test_a_loss_that_the_client_was_not_told_of_is_wrong(ledger):
    ledger.losses.append(20.5)
    send(ledger, 1, ENVELOPE, at=20.0)
    assert wrong(ledger) == {"lost": 1}


@pytest.mark.parametrize(
    ("at", "member"),
    [(15.0, False), (20.5, None), (25.0, True), (30.5, None), (35.0, False), (45.0, True), (55.0, False)],
)
def test_channel_messages_are_for_members(ledger, at, member):
    key = ENVELOPE, "room"
    ledger.joins[key] += [Change(20.0, 21.0), Change(40.0, 41.0)]
    ledger.leaves[key].append(Change(30.0, 31.0))
    ledger.events[ENVELOPE] += [(50.0, "off")]
    ledger.clients[ENVELOPE].disconnects.append(Change(49.9, 50.1))
    book_of(ledger, ENVELOPE).connections[0].closed = 50.0
    send(ledger, 1, at=at, chan="room")
    assert wrong(ledger) == ({"lost": 1} if member else {})
    arrive(ledger, ENVELOPE, 1)
    assert wrong(ledger) == ({"wrong receiver": 1} if member is False else {})


def test_a_message_for_somebody_else_is_wrong(ledger):
    send(ledger, 1, PLAIN)
    arrive(ledger, PLAIN, 1)
    arrive(ledger, ENVELOPE, 1)
    assert wrong(ledger) == {"wrong receiver": 1}


def receipt(ledger: Ledger, *statuses: str) -> None:
    """For message 1, from the envelope client to the plain one."""
    book_of(ledger, ENVELOPE).receipts["id1", PLAIN] += [Receipt(21.0, status) for status in statuses]


def test_receipts(ledger):
    send(ledger, 1, PLAIN, receipt=True)
    arrive(ledger, PLAIN, 1)
    assert wrong(ledger) == {"receipts": 1}
    receipt(ledger, "delivered", "delivered")
    assert wrong(ledger) == {}
    receipt(ledger, "offline")
    assert wrong(ledger) == {"receipts": 1}


def test_a_receipt_that_is_not_true(ledger):
    send(ledger, 1, PLAIN, receipt=True)
    receipt(ledger, "delivered")
    assert wrong(ledger) == {"lost": 1, "receipts": 1}
    ledger.clients[PLAIN].gone = 60.0
    assert wrong(ledger) == {"receipts": 1}
    book_of(ledger, ENVELOPE).receipts.clear()
    receipt(ledger, "offline")
    assert wrong(ledger) == {"receipts": 1}
    ledger.events[PLAIN].append((20.9, "off"))
    book_of(ledger, PLAIN).connections[0].closed = 14.0
    assert wrong(ledger) == {}


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        ([(9.9, "on")], 0),
        ([], 1),
        ([(9.9, "on"), (9.95, "on")], 1),
        ([(9.9, "on"), (20.0, "off"), (21.0, "on")], 1),
        ([(9.9, "on"), (40.0, "off")], 2),
    ],
)
def test_events_of_one_that_stays_connected(ledger, events, faults):
    ledger.events[ENVELOPE] = events
    assert wrong(ledger) == ({"events": faults} if faults else {})


def test_an_absence_longer_than_grace_has_an_event_and_a_shorter_one_none(ledger):
    reconnect(ledger, ENVELOPE, 20.0, 40.0, recovered=True)
    assert wrong(ledger) == {"events": 1}
    ledger.events[ENVELOPE] += [(26.1, "off"), (39.9, "on")]
    assert wrong(ledger) == {}
    ledger.events[ENVELOPE] = [(9.9, "on"), (22.0, "off"), (39.9, "on")]
    assert wrong(ledger) == {"events": 1}


def test_redis_away_delays_what_is_due(ledger):
    reconnect(ledger, ENVELOPE, 20.0, 40.0, recovered=True)
    ledger.faults.append(Fault("redis-outage", "", 21.0, 27.0))
    assert wrong(ledger) == {}


@pytest.mark.parametrize("kind", ["maxmemory", "reshard", "cluster-failover", "cluster-switch", "redis-kill", "pause"])
def test_what_disturbs_redis_delays_what_is_due(ledger, kind):
    reconnect(ledger, ENVELOPE, 20.0, 40.0, recovered=True)
    ledger.faults.append(Fault(kind, "", 21.0, 27.0))
    assert wrong(ledger) == {}
    ledger.faults[-1].kind = "slow"
    assert wrong(ledger) == {"events": 1}


def test_an_orderly_switch_excuses_that_clients_are_told_and_no_loss(ledger):
    ledger.switches.append(20.5)
    send(ledger, 1, ENVELOPE, at=20.0)
    reconnect(ledger, ENVELOPE, 21.0, 22.0, recovered=False, code=4002)
    verdict = Judge(ledger, LEASE, GRACE).verdict()
    assert {column: n for column, n in verdict.wrong.items() if n} == {"lost": 1}
    assert (verdict.counts["4002 after a loss"], verdict.counts["recovered: false after a loss"]) == (1, 1)


def test_a_moved_slot_excuses_nothing(ledger):
    ledger.faults.append(Fault("reshard", "{im:0}", 19.0, 21.0))
    send(ledger, 1, ENVELOPE, at=20.0)
    reconnect(ledger, ENVELOPE, 21.0, 22.0, recovered=False, code=4002)
    assert wrong(ledger) == {"lost": 1, "gaps": 2}


@pytest.mark.parametrize("number", BOTH)
def test_only_who_did_not_read_or_was_flooded_may_be_closed_as_too_slow(ledger, number):
    reconnect(ledger, number, 21.0, 22.0, recovered=True, code=4001)
    assert wrong(ledger) == {"other": 1}
    book_of(ledger, number).connections[0].slow = 20.5
    assert wrong(ledger) == {}
    book_of(ledger, number).connections[0].slow = None
    ledger.clients[number].floods.append(20.0)
    assert wrong(ledger) == {}
    ledger.clients[number].floods[0] = 21.5
    assert wrong(ledger) == {"other": 1}


def test_what_a_plain_client_did_not_read_may_be_missing_and_what_an_envelope_one_did_not_may_not(ledger):
    for number in BOTH:
        reconnect(ledger, number, 21.0, 22.0, recovered=True, code=4001)
        slow = book_of(ledger, number).connections[0]
        slow.slow, slow.orderly = 19.0, False
        send(ledger, number + 1, number, at=20.0)
    assert wrong(ledger) == {"lost": 1}
    send(ledger, 3, PLAIN, at=15.0)
    assert wrong(ledger) == {"lost": 2}, "what came before it stopped reading is due"


def test_a_socket_that_a_disconnect_left_open(ledger):
    ledger.clients[ENVELOPE].disconnects.append(Change(20.0, 20.1))
    assert wrong(ledger) == {"other": 1}
    book_of(ledger, ENVELOPE).connections[0].closed = 20.2
    assert wrong(ledger) == {}


def test_a_frozen_server_and_an_absent_redis_make_the_end_after_a_disconnect_late(ledger):
    ledger.clients[ENVELOPE].disconnects.append(Change(20.0, 20.1))
    reconnect(ledger, ENVELOPE, 45.0, 46.0, recovered=True)
    assert wrong(ledger) == {"other": 1}
    ledger.faults += [Fault("freeze", "s0", 21.0, 26.0), Fault("redis-outage", "4 s", 24.0, 28.0)]
    assert wrong(ledger) == {}


def test_an_echo_is_due_to_two_steady_devices_and_never_to_one(ledger):
    made = send(ledger, 1, ENVELOPE, at=40.0)
    made.sender = ENVELOPE
    assert wrong(ledger) == {}
    arrive(ledger, ENVELOPE, 1)
    assert wrong(ledger) == {"wrong receiver": 1}
    second = DeviceBook(ENVELOPE, True)
    second.connections.append(Connection("ws://s0/ws", 11.0, False, False))
    ledger.clients[ENVELOPE].devices.append(second)
    assert wrong(ledger) == {"lost": 1}
