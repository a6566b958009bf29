# Encoding of messages (contract part 2): str as it is, bytes as they are, anything else as compact JSON.
# Whatever can't be sent must be a MessageError before anything is sent, never another exception.

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imhelper.core.payload import BYTES, JSON, TEXT, Payload, check_size, encode_message, make_key, message_id
from imhelper.errors import MessageError

UTF8 = st.text(st.characters(exclude_categories=["Cs"]))
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | UTF8,
    lambda inner: st.lists(inner) | st.dictionaries(UTF8, inner),
    max_leaves=20,
)


@given(UTF8)
def test_a_str_is_sent_as_it_is(text):
    assert encode_message(text) == Payload(TEXT, text.encode())


@given(st.binary())
def test_bytes_are_sent_as_they_are(raw):
    for form in (raw, bytearray(raw), memoryview(raw)):
        payload = encode_message(form)
        assert payload == Payload(BYTES, raw) and type(payload.data) is bytes


@given(JSONS.filter(lambda v: not isinstance(v, str)))
def test_anything_else_is_compact_json(value):
    kind, data = encode_message(value)
    assert kind == JSON
    assert json.loads(data) == value
    assert data.decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def circular() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [math.nan],
        {"a": math.inf},
        object(),
        {1, 2},
        Decimal(1),
        1j,
        {(1, 2): 3},
        10**5000,
        *("\ud800", ["\ud800"], {"\udfff": 1}, nested(200_000), circular(), [b"x"], {"a": b"x"}, print),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_cant_be_encoded_is_a_message_error(value):
    with pytest.raises(MessageError):
        encode_message(value)


@given(st.sampled_from(["ü", b"x", [1]]), st.integers(0, 100), st.integers(0, 300))
def test_the_bound_is_on_encoded_bytes(unit, times, bound):
    value = unit * times
    size = len(
        value.encode()
        if isinstance(value, str)
        else value
        if isinstance(value, bytes)
        else json.dumps(value, separators=(",", ":"))
    )
    payload = encode_message(value)
    assert len(payload.data) == size
    if size <= bound:
        check_size(payload, bound)
    else:
        with pytest.raises(MessageError, match=f"at most {bound} bytes long once encoded, not {size}"):
            check_size(payload, bound)


@given(UTF8.filter(bool), st.text(), UTF8.filter(bool), st.text())
def test_a_message_id_follows_from_sender_and_key_alone(sender, key, other, other_key):
    assert message_id(sender, key) == message_id(sender, key)
    assert len(message_id(sender, key)) == 22
    if (sender, key) != (other, other_key):
        assert message_id(sender, key) != message_id(other, other_key)


def test_sender_and_key_do_not_run_together():
    assert message_id("ab", "c") != message_id("a", "bc")
    assert message_id("1", "1:x") != message_id("11", ":x")


def test_keys_are_random():
    assert len({make_key() for _ in range(1000)}) == 1000
