"""Where is a plain socket that Redis still records, or where did it end? Asks its server, and answers for the own ones.
A server may be slower to tell Redis of a socket's end than the client is to come back; nothing may be lost by that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imhelper.core import scripts
from imhelper.core.position import parse_id
from imhelper.errors import RedisUnavailableError

from .waiting import until

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Inquiry"]

log = logging.getLogger(__name__)

# How long a server that is asked has to answer; after that it counts as dead.
ASK_SECONDS = 0.3
# How long the one that is asked waits for its reader to come to where the one that asks begins.
CATCH_UP_SECONDS = 0.2
# Answers that are no position: the socket is open and has all that came before; it was given nothing, so that what is
# on record counts.
OPEN, NOT_BEGUN = b"-", b"?"


class Inquiry:
    """Questions and answers go through the boots' wake streams, so that an answer proves that the reader lives."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[tuple[bytes, bytes], list[asyncio.Future[bytes]]] = {}

    async def oldest(self, start: bytes, others: list[bytes], slot: int, group: int, last: int) -> bytes:
        """Where a plain socket starts whose client has others on record.

        `others` holds boot, number, last reported position of each, `last` is the number of the log's last entry. One
        that is open and has all of that counts for nothing. One that has ended counts with the place where it did,
        one that is behind with where it is: it may end before it is given the rest, its client may have given it up.
        When nobody answers for a socket, or it is not open yet, its last reported position counts.
        """
        for boot, number, reported in _triples(others):
            if parse_id(reported) < parse_id(start):
                place = await self._ask(boot, number, slot, group, last)
                if place != OPEN:
                    start = min(start, place if place and place != NOT_BEGUN else reported, key=parse_id)
        return start

    async def _ask(self, boot: bytes, number: bytes, slot: int, group: int, last: int) -> bytes | None:
        if boot == self._hub.boot_raw:
            return await self._place(int(number), slot, last)
        # Two sockets of the client may come at once: one answer serves both.
        waiting = self._waiting.setdefault((boot, number), [])
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        waiting.append(answer)
        try:
            question = b"%s %s %d %d" % (self._hub.boot_raw, number, slot, last)
            if not await self._hub.link.eval(scripts.load("wake"), group, boot, "q", question):
                return None
            async with asyncio.timeout(ASK_SECONDS):
                return await answer
        except (TimeoutError, RedisUnavailableError):
            return None
        finally:
            waiting.remove(answer)
            if not waiting:
                self._waiting.pop((boot, number), None)

    async def _place(self, number: int, slot_number: int, last: int) -> bytes:
        hub, slot = self._hub, self._hub.slots.get(slot_number)
        if slot is not None and hub.presence.ended(number) is None and number not in hub.admitting:
            await until(lambda: slot.n >= last, CATCH_UP_SECONDS)
        ended = hub.presence.ended(number)
        if ended is not None or slot is None or number in hub.admitting:
            return ended or NOT_BEGUN
        at = OPEN if slot.n >= last else slot.id
        return next((s.place for s in (*slot.waiting, *slot.stalled) if s.number == number), at)

    async def answer(self, group: int, question: bytes) -> None:
        """Another boot asks about a socket of this one."""
        boot, number, slot, last = question.split(b" ")
        text = b"%s %s %s" % (self._hub.boot_raw, number, await self._place(int(number), int(slot), int(last)))
        try:
            await self._hub.link.eval(scripts.load("wake"), group, boot, "a", text)
        except RedisUnavailableError:
            log.debug("an answer found Redis unavailable: who asked takes this server for dead")

    def answered(self, text: bytes) -> None:
        """Another boot has answered."""
        boot, number, ended = text.split(b" ")
        for waiting in self._waiting.get((boot, number), ()):
            if not waiting.done():
                waiting.set_result(ended)


def _triples(flat: list[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    items = iter(flat)
    return zip(items, items, items, strict=True)
