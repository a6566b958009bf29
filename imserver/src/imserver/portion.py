"""How much a read asks for, so that its reply stays a few megabytes whatever lies in the logs.
Pure: fed with what each read brought, for how large entries are is known only afterwards."""

from __future__ import annotations

__all__ = ["ENTRY_BYTES", "Portion"]

# Of an entry beside its payload, about.
ENTRY_BYTES = 200
# Of one stream; more would be a reply that one slot has for itself.
COUNT_MAX = 1000
# So much more after a read that left something behind: the fewer reads a burst takes, the fewer writes it is.
GROWTH_MAX = 8


class Portion:
    """Shares a number of entries among the streams of a read.

    It begins with what fits into `budget` bytes even if each entry were of `largest` bytes, goes on with several times
    as many while more is waiting and what comes next would fit if it were like what came, and with what would have fit
    once too much came. So a reply is over the budget only if what was small is followed at once by what is large.
    """

    def __init__(self, budget: int, largest: int) -> None:
        self._budget = budget
        self._first = max(1, budget // largest)
        self._entries = self._first

    def share(self, streams: int) -> tuple[int, int]:
        """How many of the streams to ask, and for how many entries of each."""
        asked = max(1, min(streams, self._entries))
        return asked, min(COUNT_MAX, self._entries // asked)

    def brought(self, entries: int, size: int, waiting: bool, streams: int) -> bool:
        """So many entries of so many bytes came, and `waiting`: there may be more, for some of it was not asked for.

        Returns whether to ask again at once, for more.
        """
        if size > self._budget:
            self._entries = max(1, entries * self._budget // size)
            return False
        growth = min(GROWTH_MAX, self._budget // max(1, size))
        if not waiting or growth < 2 or self._entries >= COUNT_MAX * streams:
            return False
        self._entries *= growth
        return True

    def stalled(self) -> None:
        """Nobody has read for a while: anything may have come together, of any size."""
        self._entries = min(self._entries, self._first)
