# Slots, groups, key names, tokens and positions: what must be the same in every language and release.
# CRC-32 vectors are the published check values of CRC-32/ISO-HDLC, so that another helper can be held against them.

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from imhelper.core import keys
from imhelper.core.position import ZERO, Position, StreamId, parse_id, parse_position
from imhelper.core.slots import CLUSTER_GROUPS, group_of, slot_of
from imhelper.core.tokens import make_token, slot_of_token

VECTORS = {
    "123456789": 0xCBF43926,  # the check value of the catalogue
    "": 0x00000000,
    "a": 0xE8B7BE43,
    "The quick brown fox jumps over the lazy dog": 0x414FA339,
}
CLIENTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32)
SLOTS = st.sampled_from([16, 32, 64, 128, 256, 512, 1024])


@pytest.mark.parametrize("text", VECTORS)
@pytest.mark.parametrize("slots", [16, 128, 1024])
def test_the_slot_is_crc32_iso_hdlc_modulo_slots(text, slots):
    assert slot_of(text, slots) == VECTORS[text] % slots
    assert slot_of(text.encode(), slots) == VECTORS[text] % slots


def bitwise_crc32(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(CLIENTS, SLOTS)
def test_the_slot_is_taken_over_utf8(client, slots):
    assert slot_of(client, slots) == bitwise_crc32(client.encode()) % slots


@given(st.integers(0, 1023), st.sampled_from([1, 16]))
def test_groups_partition_the_slots(slot, groups):
    assert group_of(slot, groups) == slot % groups


@given(CLIENTS.filter(lambda t: "{" not in t and "}" not in t), st.integers(0, 15), CLIENTS)
def test_all_keys_of_a_group_share_its_hash_slot_whatever_the_client_is_called(prefix, group, client):
    tag = keys.group_tag(prefix, group)
    names = [
        *(keys.log(tag, 7), keys.wake(tag, "b"), keys.online(tag), keys.grace(tag), keys.chan_index(tag)),
        *(keys.client_sockets(tag, client), keys.client_chans(tag, client), keys.chan_members(tag, client)),
        *(keys.last_ids(tag), keys.boot_sockets(tag, "b"), keys.events(tag), keys.outbox(tag)),
    ]
    assert {key_slot(name.encode()) for name in names} == {key_slot(tag.encode())}
    assert len(set(names)) == len(names)
    shared = {keys.topology(prefix), keys.servers(prefix)}
    assert {key_slot(name.encode()) for name in shared} == {key_slot(keys.global_tag(prefix).encode())}


def test_groups_of_a_cluster_are_spread_over_its_hash_slots():
    assert len({key_slot(keys.group_tag("im", g).encode()) for g in range(CLUSTER_GROUPS)}) == CLUSTER_GROUPS


@given(st.integers(0, 1023))
def test_a_token_tells_its_slot(slot):
    token = make_token(slot)
    assert slot_of_token(token, 1024) == slot
    assert slot_of_token(token, 16) == (slot if slot < 16 else None)


def test_tokens_are_random_and_safe_in_a_url():
    tokens = {make_token(5) for _ in range(1000)}
    assert len(tokens) == 1000
    # 24 characters of 6 bits: more than the 128 bits that the contract asks for.
    assert all(len(t.partition(".")[2]) == 24 for t in tokens)


GOOD = "7f." + "A" * 24


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "7f",
        "7f.",
        GOOD + "A",
        GOOD[:-1],
        "7F." + "A" * 24,
        "-1." + "A" * 24,
        " " + GOOD,
        GOOD + "\n",
        "٣." + "A" * 24,
        "7f." + "Ä" * 24,
        "7f." + "A" * 23 + "\x00",
        "0x1." + "A" * 24,
        "1000." + "A" * 24,
        "80." + "A" * 24,
        "A" * 100_000,
        "\udcff",
    ],
    ids=ascii,
)
def test_what_is_no_token_is_none(text):
    assert slot_of_token(GOOD, 128) == 0x7F
    assert slot_of_token(text, 128) is None


@given(st.text(max_size=40))
def test_no_text_makes_the_token_check_fail(text):
    slot = slot_of_token(text, 128)
    assert slot is None or 0 <= slot < 128


NUMBERS = st.integers(0, 10**15 - 1)
IDS = st.builds(StreamId, NUMBERS, NUMBERS)


@given(st.builds(Position, st.integers(0, 10**12 - 1), IDS))
def test_positions_round_trip(position):
    assert parse_position(bytes(position)) == position
    assert parse_position(bytes(position).decode()) == position


@given(IDS)
def test_ids_round_trip(stream_id):
    assert parse_id(bytes(stream_id)) == stream_id


@given(IDS, IDS)
def test_ids_order_as_redis_orders_them(one, other):
    assume(one != other)
    assert (one < other) == ((one.ms, one.n) < (other.ms, other.n))
    assert min(one, other) >= ZERO


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1.2",
        "1.2-",
        "-1.2-3",
        "1.2-3 ",
        "1.2-3\n",
        " 1.2-3",
        "1,2-3",
        "1.2-3-4",
        "a.b-c",
        "٣.1-1",
        "\uff11.1-1",
        "1.+2-3",
        *("9" * 13 + ".1-1", "1." + "9" * 16 + "-1", "1.1-" + "9" * 16, "9" * 100_000, "\ud800", "1.1-1\x00"),
    ],
    ids=ascii,
)
def test_what_is_no_position_is_none(text):
    assert parse_position(text) is None


@given(st.text(max_size=30) | st.binary(max_size=30))
def test_no_input_makes_the_position_check_fail(raw):
    parsed = parse_position(raw)
    assert parsed is None or isinstance(parsed, Position)


@pytest.mark.parametrize("raw", [b"", b"1", b"a-b", b"1-", b"-1"])
def test_an_id_that_redis_never_wrote_is_an_error(raw):
    with pytest.raises(ValueError):
        parse_id(raw)
