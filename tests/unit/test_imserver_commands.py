# What clients may say, and with which code they are sent away for anything else.

import pytest

from imhelper.core.position import Position, StreamId
from imserver.commands import PING, Misspoken, understand


def test_acks_and_pings_are_understood():
    assert understand(b'{"t":"ping"}', True) == PING
    assert understand(b' {"t": "ack", "pos": "7.5-3", "more": 1} ', True) == Position(7, StreamId(5, 3))


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"\xff", 1007, "UTF-8"),
        (b"ping", 4501, "only ack and ping"),
        (b'"ping"', 4501, "only ack and ping"),
        (b'{"t":"msg"}', 4501, "only ack and ping"),
        (b'{"t":["ack"],"pos":"1.1-1"}', 4501, "only ack and ping"),
        (b'{"t":"ack"}', 4501, "only ack and ping"),
        (b'{"t":"ack","pos":1}', 4501, "only ack and ping"),
        (b'{"t":"ack","pos":"1-1"}', 4501, "position"),
        (b"[" * 4000, 4501, "only ack and ping"),
        (b'{"t":' + b"9" * 4000 + b"}", 4501, "only ack and ping"),
    ],
)
def test_anything_else_ends_the_connection(payload, code, reason):
    with pytest.raises(Misspoken) as caught:
        understand(payload, True)
    assert caught.value.code == code and reason in caught.value.reason


def test_in_plain_mode_all_text_is_ignored():
    assert understand(b'{"t":"ping"}', False) is None
    with pytest.raises(Misspoken):
        understand(b"\xff", False)
