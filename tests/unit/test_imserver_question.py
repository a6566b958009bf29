# What a reader asks in its wire form is what packing all of it anew would give, whatever changed since the last time.

from hypothesis import given
from hypothesis import strategies as st

from imhelper._backend.common import pack
from imhelper.core.position import StreamId
from imserver.question import Question
from imserver.state import Slot

SLOTS = [Slot(n, 0, b"{im:0}:log:%d" % n, StreamId(n, n)) for n in range(6)]


def expected(slots: list[Slot], count: int, block_ms: int | None, wake_id: bytes) -> bytes:
    block = () if block_ms is None else ("BLOCK", block_ms)
    keys, ids = [s.key for s in slots], [s.read for s in slots]
    return pack(("XREAD", "COUNT", count, *block, "STREAMS", b"{im:0}:wake:b", *keys, wake_id, *ids))


Step = tuple[list[int], list[tuple[int, int]], int, int | None, int]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.lists(st.integers(0, 5), unique=True),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10**15))),
        st.integers(4, 1000),
        st.none() | st.just(2000),
        st.integers(0, 10**15),
    ),
    min_size=1,
)


@given(STEPS)
def test_what_is_kept_from_the_last_time_is_never_out_of_date(steps: list[Step]):
    question = Question(b"{im:0}:wake:b")
    for numbers, moved, count, block_ms, at in steps:
        slots = [SLOTS[n] for n in numbers]
        for n, ms in moved:
            SLOTS[n].read = b"%d-%d" % (ms, n)
        question.ask_for(list(slots))
        wake_id = b"%d-0" % at
        assert question.packed(count, block_ms, wake_id) == expected(slots, count, block_ms, wake_id)
        assert question.by_key == {slot.key: slot for slot in slots}


def test_a_slot_that_took_the_place_of_another_with_its_number_is_asked_for_with_its_own_id():
    old, new = Slot(7, 0, b"k", StreamId(5, 5)), Slot(7, 0, b"k", StreamId(9, 9))
    question = Question(b"{im:0}:wake:b")
    for slot in (old, new):
        question.ask_for([slot])
        assert question.packed(4, None, b"0-0") == expected([slot], 4, None, b"0-0")
        assert question.by_key == {b"k": slot}
