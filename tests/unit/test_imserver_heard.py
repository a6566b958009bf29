# What a connection may say a tick: over its share it is not read, and ticks pay until it is.

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from imserver.heard import SHARE_BYTES, Heard


class Line:
    """A transport that is read or not."""

    def __init__(self) -> None:
        self.read = True
        self.closing = False

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        assert not self.closing, "a transport that closes is not read again"
        self.read = True

    def is_closing(self) -> bool:
        return self.closing


@given(st.lists(st.integers(0, 3 * SHARE_BYTES), max_size=60))
def test_who_says_more_than_a_share_a_tick_waits_and_nobody_else(sizes):
    heard, loud, quiet = Heard(), Line(), Line()
    said = 0
    for ticks, size in enumerate(sizes, 1):
        if loud.read:
            heard.add(cast(Any, loud), size)
            said += size
        heard.add(cast(Any, quiet), SHARE_BYTES)
        assert quiet.read
        heard.tick()
        assert said <= (ticks + 1) * SHARE_BYTES or not loud.read, "read again before its debt is paid"
    for _ in range(4):
        heard.tick()
    assert loud.read and quiet.read
    assert heard.owing == 0, "who is quiet costs nothing"


def test_a_connection_that_closes_meanwhile_is_forgotten():
    heard, line = Heard(), Line()
    heard.add(cast(Any, line), 10 * SHARE_BYTES)
    assert not line.read
    line.closing = True
    heard.tick()
    assert heard.owing == 0
    heard.add(cast(Any, line), 10 * SHARE_BYTES)
    heard.tick()
    assert heard.owing == 0
