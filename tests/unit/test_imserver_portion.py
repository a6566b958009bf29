# How much a read asks for: bounded by bytes when nothing is known, soon by what is waiting.
# Reads of a whole reader are in test_imserver_reader.py.

import pytest

from imserver.portion import COUNT_MAX, Portion

BUDGET = 4 << 20


@pytest.mark.parametrize(("largest", "streams", "asked"), [(1 << 16, 128, (64, 1)), (1 << 16, 8, (8, 8))])
def test_as_long_as_nothing_is_known_all_may_be_of_the_largest_size(largest, streams, asked):
    assert Portion(BUDGET, largest).share(streams) == asked


def test_entries_that_are_larger_than_the_budget_come_one_at_a_time():
    portion = Portion(BUDGET, 16 << 20)
    assert portion.share(128) == (1, 1)
    portion.brought(1, 16 << 20, True, 128)
    assert portion.share(128) == (1, 1)


def test_while_small_ones_wait_more_are_asked_for_at_once():
    portion, reads = Portion(BUDGET, 1 << 16), 0
    while portion.brought(100, 50_000, True, 128):
        reads += 1
    assert reads <= 4 and portion.share(128) == (128, COUNT_MAX)
    assert not portion.brought(100, 50_000, False, 128)
    assert portion.share(128) == (128, COUNT_MAX)


def test_after_too_much_came_so_many_are_asked_for_as_would_have_fitted():
    portion = Portion(BUDGET, 1 << 16)
    while portion.brought(100, 50_000, True, 128):
        pass
    assert not portion.brought(1280, 20 << 20, True, 128)
    assert portion.share(128) == (128, 2)


def test_what_was_known_is_worth_nothing_after_a_while_without_a_read():
    portion = Portion(BUDGET, 1 << 16)
    while portion.brought(100, 50_000, True, 128):
        pass
    portion.stalled()
    assert portion.share(128) == (64, 1)
    assert not portion.brought(64, BUDGET + 64 * 200, True, 128), "too much is no reason for more"
    portion.stalled()
    assert portion.share(128) == (63, 1), "nor is a pause"


def test_without_slots_the_wake_stream_is_read():
    assert Portion(BUDGET, 1 << 16).share(0)[1] > 0
