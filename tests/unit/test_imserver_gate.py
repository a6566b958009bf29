# The gate before handshakes: never faster than its rate, in order, nothing lost, never longer than its line.
# Time is given, so each law holds for any arrivals.

from hypothesis import given
from hypothesis import strategies as st

from imserver.gate import Gate, Pace


def test_a_burst_passes_and_the_rest_waits_its_turn():
    gate: Gate[int] = Gate(rate=10, burst=3, room=2)
    assert [gate.enter(i, 0.0) for i in range(6)] == [True, True, True, None, None, False]
    assert list(gate.due(0.05)) == []
    assert list(gate.due(0.1)) == [3]
    assert gate.enter(6, 0.15) is None, "who comes later does not overtake the line"
    assert list(gate.due(10.0)) == [4, 6]
    assert [gate.enter(i, 10.0) for i in range(2)] == [True, None]


@given(
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
    rate=st.floats(1, 50),
    burst=st.integers(1, 20),
    room=st.integers(0, 20),
)
def test_never_above_the_rate_always_in_order(gaps: list[float], rate: float, burst: int, room: int):
    gate: Gate[int] = Gate(rate, burst, room)
    now = 0.0
    passed: list[int] = []
    refused: list[int] = []
    for item, gap in enumerate(gaps):
        now += gap
        passed += gate.due(now)
        answer = gate.enter(item, now)
        if answer is False:
            refused.append(item)
        elif answer:
            passed.append(item)
        assert len(gate) <= room
        assert len(passed) <= burst + rate * now + 1e-6
    passed += gate.due(now + 1e6)
    while len(gate):
        now += 1e6
        passed += gate.due(now)
    assert passed == sorted(passed)
    assert sorted(passed + refused) == list(range(len(gaps)))


@given(gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200), rate=st.floats(1, 50), burst=st.integers(1, 20))
def test_turns_begin_at_the_rate_and_no_later_than_they_must(gaps: list[float], rate: float, burst: int):
    pace, now, begins = Pace(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        begins.append(now + pace.turn(now))
    assert begins == sorted(begins)
    for n, begin in enumerate(begins):
        assert n + 1 <= burst + rate * begin + 1e-6
    assert pace.turn(now + 1e6) == 0
