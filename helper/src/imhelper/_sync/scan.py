"""Reading large sets and hashes page by page, so that Redis is never held up by a big reply.
Generated from _async/scan.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

from collections.abc import Iterator

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

    def members(self, group: int, key: str) -> Iterator[str]:
        """The members of a set."""
        for page in self.pages(group, "SSCAN", key):
            for member in page:
                yield member.decode()

    def batches(self, group: int, key: str) -> Iterator[list[str]]:
        """The members of a set, at most BATCH at a time."""
        for page in self.pages(group, "SSCAN", key):
            for start in range(0, len(page), BATCH):
                yield [member.decode() for member in page[start : start + BATCH]]

    def pages(self, group: int, command: str, key: str) -> Iterator[list[bytes]]:
        """The pages that SSCAN or HSCAN yields, raw."""
        cursor: Arg = "0"
        while True:
            [reply] = self._view.all([Call(group, (command, key, cursor, "COUNT", PAGE))])
            cursor, page = reply
            yield page
            if int(cursor) == 0:
                return
