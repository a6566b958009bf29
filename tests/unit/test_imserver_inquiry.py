# Where a plain socket starts whose client has others on record: asked of their servers, without a Redis.
# The stand-in for the other server answers at once, later, or not at all.

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper.errors import RedisUnavailableError
from imserver.inquiry import Inquiry

START, REPORTED, ENDED, BEHIND, CURSOR = b"50-9", b"50-3", b"50-5", b"50-4", b"50-8"


class Link:
    """Hands each question to `other`, which may answer it or raise."""

    inquiry: Inquiry

    def __init__(self, other: "Other") -> None:
        self.other = other
        self.questions: list[tuple[bytes, str, bytes]] = []

    async def eval(self, script: Any, group: int, boot: bytes, kind: str, text: bytes) -> int:
        assert (script.name, group) == ("wake", 0)
        self.questions.append((boot, kind, text))
        return self.other(self, boot, text)


Other = Callable[[Link, bytes, bytes], int]


def inquiry_with(other: Other, ended: Mapping[int, bytes] | None = None) -> Inquiry:
    link = Link(other)
    presence = SimpleNamespace(ended=(ended or {}).get)
    slot = SimpleNamespace(id=CURSOR, n=8, waiting=[SimpleNamespace(number=20, place=BEHIND)])
    slot.stalled = [SimpleNamespace(number=21, place=BEHIND)]
    hub: Any = SimpleNamespace(boot_raw=b"me", link=link, presence=presence, admitting={22}, slots={5: slot})
    link.inquiry = Inquiry(hub)
    return link.inquiry


def questions_of(inquiry: Inquiry) -> object:
    link: Any = inquiry._hub.link
    return link.questions


def answering(text: bytes) -> Other:
    def other(link: Link, boot: bytes, question: bytes) -> int:
        asker, number, slot, last = question.split(b" ")
        assert (asker, slot, last) == (b"me", b"5", b"9")
        link.inquiry.answered(b"%s %s %s" % (boot, number, text))
        return 1

    return other


def dead(link: Link, boot: bytes, question: bytes) -> int:
    return 0


def silent(link: Link, boot: bytes, question: bytes) -> int:
    return 1


def away(link: Link, boot: bytes, question: bytes) -> int:
    raise RedisUnavailableError("gone")


@pytest.mark.parametrize(
    ("other", "start"),
    [
        (answering(b"-"), START),
        (answering(CURSOR), CURSOR),
        (answering(ENDED), ENDED),
        (answering(b"?"), REPORTED),
        (dead, REPORTED),
        (silent, REPORTED),
        (away, REPORTED),
    ],
)
async def test_another_server_decides_and_for_a_dead_one_its_last_report(other, start):
    inquiry = inquiry_with(other)
    assert await inquiry.oldest(START, [b"you", b"7", REPORTED], 5, 0, 9) == start


async def test_a_socket_that_ended_after_the_start_changes_nothing():
    assert await inquiry_with(answering(b"50-12")).oldest(START, [b"you", b"7", REPORTED], 5, 0, 9) == START


async def test_nobody_is_asked_where_nothing_can_have_been_missed():
    inquiry = inquiry_with(silent)
    assert await inquiry.oldest(START, [b"you", b"7", START], 5, 0, 9) == START
    assert questions_of(inquiry) == []


@pytest.mark.parametrize(("ended", "start"), [({7: ENDED}, ENDED), ({7: b""}, REPORTED), ({}, CURSOR)])
async def test_own_sockets_are_known_without_asking(ended, start):
    inquiry = inquiry_with(away, ended)
    assert await inquiry.oldest(START, [b"me", b"22", REPORTED], 5, 0, 9) == REPORTED, "it is not open yet"
    assert await inquiry.oldest(START, [b"me", b"20", REPORTED], 5, 0, 9) == BEHIND, "it may be given up"
    assert await inquiry.oldest(START, [b"me", b"7", REPORTED], 5, 0, 9) == start


async def test_the_earliest_of_several_counts():
    inquiry = inquiry_with(answering(ENDED), {1: b"50-4"})
    assert await inquiry.oldest(START, [b"you", b"7", REPORTED, b"me", b"1", REPORTED], 5, 0, 9) == b"50-4"
    assert await inquiry.oldest(START, [b"me", b"1", REPORTED, b"you", b"7", REPORTED], 5, 0, 9) == b"50-4"


async def test_two_handshakes_of_one_client_share_an_answer():
    inquiry = inquiry_with(silent)
    asked = [asyncio.create_task(inquiry.oldest(START, [b"you", b"7", REPORTED], 5, 0, 9)) for _ in range(2)]
    await asyncio.sleep(0)
    inquiry.answered(b"you 7 50-5")
    inquiry.answered(b"you 8 50-1")
    assert await asyncio.gather(*asked) == [ENDED, ENDED]
    assert inquiry._waiting == {}
    inquiry.answered(b"you 7 50-1")


async def test_an_answer_tells_where_a_socket_is_or_where_it_ended():
    inquiry = inquiry_with(silent, {7: ENDED, 9: b""})
    for number in (7, 8, 9, 20, 21, 22):
        await inquiry.answer(0, b"you %d 5 9" % number)
    await inquiry.answer(0, b"you 20 6 9")
    await inquiry.answer(0, b"you 8 5 8")
    told = [(7, ENDED), (8, CURSOR), (9, b"?"), (20, BEHIND), (21, BEHIND), (22, b"?"), (20, b"?"), (8, b"-")]
    assert questions_of(inquiry) == [(b"you", "a", b"me %d %s" % answer) for answer in told]


async def test_a_reader_that_is_a_little_behind_is_waited_for():
    inquiry = inquiry_with(silent)
    slot: Any = inquiry._hub.slots[5]
    asked = asyncio.create_task(inquiry.oldest(START, [b"me", b"7", REPORTED], 5, 0, 9))
    await asyncio.sleep(0.02)
    slot.n = 9
    assert await asked == START
