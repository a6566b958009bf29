# What a server tells Redis about its sockets, in which order: receipts before the places that they lie before.
# The stand-in for Redis notes calls and refuses those that it is told to.

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imhelper.core.position import StreamId
from imhelper.errors import RedisUnavailableError
from imserver.lease import Fenced
from imserver.presence import NOT_BEGUN, NOWHERE, Presence
from imserver.socket import Socket
from imserver.state import Member, Slot


class Link:
    """Answers each script as Redis would that knows no pending receipts."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.last: tuple[Any, ...] = ()
        self.refused: set[str] = set()
        # Groups that do not answer, until `given_up`: as a node of a Redis Cluster that is gone without a word.
        self.away: set[int] = set()
        self.given_up = asyncio.Event()
        self.told: list[tuple[int, str]] = []
        # What the next calls say is left.
        self.left: list[int] = []

    async def eval(self, script: Any, group: int, *args: Any) -> Any:
        self.calls.append(script.name)
        self.last = args
        if group in self.away:
            await self.given_up.wait()
        if script.name in self.refused or group in self.away:
            raise RedisUnavailableError("gone")
        self.told.append((group, script.name))
        return [self.left.pop(0) if self.left else 0] * ((len(args) - 3) // 3)


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def slot():
    found = Slot(5, 0, b"{im:0}:log:5", StreamId(1000, 9))
    found.plain = 1
    return found


@pytest.fixture
def presence(link, slot):
    settings = SimpleNamespace(grace_seconds=10.0)
    hub: Any = SimpleNamespace(link=link, slots={5: slot}, boot="b", settings=settings, retention=(1, 1, 1), groups=1)
    hub.newest = 3
    hub.settled = lambda: hub.newest
    return Presence(hub)


def entered(slot: Slot, floor: int) -> tuple[Socket, Member]:
    """An envelope socket of `al`, which may ack what comes after `floor`."""
    socket = Socket(cast(Any, None))
    socket.envelope, socket.floor = True, floor
    return socket, slot.enter(socket, b"al")


async def test_receipts_are_told_before_the_place_that_they_lie_before(presence, link, slot):
    presence.ack(slot, b"al", 0, 9)
    await presence._positions()
    assert link.calls == ["ack", "positions"]


async def test_no_place_is_told_while_a_receipt_before_it_is_not(presence, link, slot):
    presence.ack(slot, b"al", 0, 9)
    link.refused = {"ack"}
    with pytest.raises(RedisUnavailableError):
        await presence._positions()
    assert link.calls == ["ack"]
    link.refused.clear()
    await presence._positions()
    assert link.calls == ["ack", "ack", "positions"]


async def test_an_ack_that_covers_nothing_new_is_not_told(presence, link, slot):
    socket, member = entered(slot, floor=4)
    member.pending = 9
    for hi in (3, 4):
        presence.ack(slot, b"al", socket.floor, hi)
    await presence.flush()
    assert link.calls == []
    link.left = [5, 0]
    for hi in (6, 6, 5, 9, 9, 8):
        presence.ack(slot, b"al", socket.floor, hi)
        await presence.flush()
    assert link.calls == ["ack", "ack"] and link.last[3:] == (b"al", 6, 9)
    assert (socket.floor, member.pending) == (9, 0)


async def test_what_is_too_much_for_one_call_is_told_until_it_is_done(presence, link, slot):
    link.left = [-1, -1, 0]
    presence.ack(slot, b"al", 0, 9)
    await presence.flush()
    assert link.calls == ["ack"] * 3 and link.last[3:] == (b"al", 0, 9) and presence.idle


async def test_numbers_that_begin_again_below_are_acked_from_there(presence, link, slot):
    """Redis lost writes while an ack was told: the reader went back to where the log ends now."""
    socket, _ = entered(slot, floor=2)
    presence.ack(slot, b"al", 2, 9)
    slot.n = socket.floor = 2
    await presence.flush()
    assert socket.floor == 2


async def test_a_sockets_end_is_told_after_its_receipts(presence, link, slot):
    presence.ack(slot, b"al", 0, 9)
    presence.gone(0, 7, b"1000-9")
    await presence.flush()
    assert link.calls == ["ack", "close"]
    assert presence.idle


async def test_what_could_not_be_told_is_told_later_and_the_end_is_known_meanwhile(presence, link):
    presence.gone(0, 7, b"1000-9")
    presence.gone(0, 8, NOT_BEGUN)
    presence.gone(0, 9, NOWHERE)
    link.refused = {"close"}
    with pytest.raises(RedisUnavailableError):
        await presence.flush()
    assert not presence.idle
    assert [presence.ended(n) for n in (7, 8, 9, 10)] == [b"1000-9", NOT_BEGUN, None, None]
    link.refused.clear()
    await presence.flush()
    assert presence.idle
    # A handshake elsewhere may have seen it on record just before.
    assert presence.ended(7) == b"1000-9"


async def test_a_place_is_told_once_until_it_changes(presence, link, slot):
    await presence._positions()
    await presence._positions()
    assert link.calls == ["positions"]
    slot.id, slot.n = b"1000-10", 10
    await presence._positions()
    assert link.calls == ["positions", "positions"]


async def test_a_place_is_told_again_for_a_socket_that_it_was_not_told_of(presence, link, slot):
    await presence._positions()
    assert link.last == ("b", 3, 5, b"1000-9")
    slot.newest = 4
    await presence._positions()
    await presence._positions()
    assert link.last[1] == 3, "its handshake is not over: again and again"
    presence._hub.newest = 4
    await presence._positions()
    await presence._positions()
    assert link.last[1] == 4
    assert link.calls == ["positions"] * 4


async def test_where_a_socket_ended_is_told_before_the_place_of_those_that_stay(presence, link):
    presence.gone(0, 7, b"1000-5")
    await presence._positions()
    assert link.calls == ["close", "positions"]


def slots_of_three_groups(presence) -> None:
    presence._hub.groups = 3
    presence._hub.slots = {n: Slot(n, n, b"{im:%d}:log:%d" % (n, n), StreamId(1000, 9)) for n in range(3)}
    for slot in presence._hub.slots.values():
        slot.plain = 1


async def test_a_group_that_is_away_keeps_the_places_of_no_other_untold(presence, link):
    slots_of_three_groups(presence)
    link.away = {0, 1}
    telling = asyncio.create_task(presence._positions())
    await asyncio.sleep(0.01)
    assert link.told == [(2, "positions")], "while two groups have not answered"
    link.given_up.set()
    with pytest.raises(RedisUnavailableError):
        await telling
    link.away = set()
    await presence._positions()
    assert sorted(link.told) == [(0, "positions"), (1, "positions"), (2, "positions")]


async def test_a_group_that_is_away_keeps_what_went_in_no_other_untold(presence, link):
    slots_of_three_groups(presence)
    for group in range(3):
        presence.gone(group, group, b"1000-5")
    link.away = {0}
    telling = asyncio.create_task(presence.flush())
    await asyncio.sleep(0.01)
    assert sorted(link.told) == [(1, "close"), (2, "close")]
    link.given_up.set()
    with pytest.raises(RedisUnavailableError):
        await telling
    assert not presence.idle
    link.away = set()
    await presence.flush()
    assert presence.idle
    assert sorted(link.told) == [(0, "close"), (1, "close"), (2, "close")]


async def test_an_end_by_others_is_heard_of_though_another_group_is_away(presence, link, monkeypatch):
    presence._hub.groups = 2
    presence._hub.doubtful = set()

    async def restore(group: int) -> None:
        raise RedisUnavailableError("gone") if group == 0 else Fenced

    monkeypatch.setattr(presence, "_restore_group", restore)
    presence.restore()
    with pytest.raises(Fenced):
        await asyncio.wait_for(presence.run_restore(), 5)
