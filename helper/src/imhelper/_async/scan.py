"""Reading large sets and hashes page by page, so that Redis is never held up by a big reply.
The blocking form is generated from this file by tools/unasync.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .._backend.common import Arg, Call
from .view import View

__all__ = ["Scan"]

PAGE = 1000
# Members that one script is given: Redis serves nobody else while it works on them.
BATCH = 200


class Scan:
    """Iterates with SSCAN and HSCAN (https://redis.io/docs/latest/commands/scan/): what is there from beginning to
    end is found; an element may come twice while many others come and go."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def members(self, group: int, key: str) -> AsyncIterator[str]:
        """The members of a set."""
        async for page in self.pages(group, "SSCAN", key):
            for member in page:
                yield member.decode()

    async def batches(self, group: int, key: str) -> AsyncIterator[list[str]]:
        """The members of a set, at most BATCH at a time."""
        async for page in self.pages(group, "SSCAN", key):
            for start in range(0, len(page), BATCH):
                yield [member.decode() for member in page[start : start + BATCH]]

    async def pages(self, group: int, command: str, key: str) -> AsyncIterator[list[bytes]]:
        """The pages that SSCAN or HSCAN yields, raw."""
        cursor: Arg = "0"
        while True:
            [reply] = await self._view.all([Call(group, (command, key, cursor, "COUNT", PAGE))])
            cursor, page = reply
            yield page
            if int(cursor) == 0:
                return
