# A member of an event bus group whose lease ends in the middle of a batch: what it may not work on is not done.
# The stand-in for the stream answers at once; nothing else of Redis is needed.

import time
from typing import Any

import pytest

from imhelper._async.event_groups import GroupSubscription, _Hold
from imhelper._async.events import Event

EVENTS = [Event(0, b"%d-0" % n, kind, "al", 3, "") for n, kind in ((1, b"on"), (2, b"off"), (3, b"on"))]


class Feed:
    """Gives all events after a position, and then calls `meanwhile`."""

    def __init__(self) -> None:
        self.meanwhile: Any = lambda: None

    async def read(self, after: dict[int, bytes], background: object) -> list[Event]:
        self.meanwhile()
        return [event for event in EVENTS if event.id > after[0]]


class Link:
    """Lets every event be finished."""

    async def eval(self, script: Any, *args: Any) -> int:
        assert script.name == "events_done"
        return 1


@pytest.fixture
def told():
    return []


@pytest.fixture
def member(told):
    link: Any = Link()
    feed: Any = Feed()
    made = GroupSubscription(link, feed, lambda *_: told.append("on"), lambda *_: told.append("off"), "group")
    made._holds[3] = _Hold(b"0-0")
    made._valid_until = time.monotonic() + 60
    return made


async def test_what_is_held_is_worked_on_in_order(member, told):
    await member._step()
    assert told == ["on", "off", "on"]
    assert member._holds[3].position == b"3-0"


async def test_events_that_come_when_the_lease_has_ended_are_left_for_later(member, told):
    def lease_ends() -> None:
        member._valid_until = time.monotonic() - 1

    member._feed.meanwhile = lease_ends
    await member._step()
    assert told == []
    assert member._holds[3].position == b"0-0"
    member._feed.meanwhile = lambda: None
    member._valid_until = time.monotonic() + 60
    await member._step()
    assert told == ["on", "off", "on"]


async def test_a_lease_that_comes_back_in_mid_batch_leaves_no_hole(member, told):
    begun = []

    def begin(partition: int, hold: _Hold) -> bool:
        begun.append(partition)
        return len(begun) != 2

    member._begin = begin
    await member._step()
    # The second event was not this member's to work on, so neither is the third, though it would be again by then.
    assert (told, begun, member._holds[3].position) == (["on"], [3, 3], b"1-0")
