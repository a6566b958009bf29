"""Tells envelope clients that Redis lost writes: closed with 4002, so that they reload, but not all at once.
Until its turn comes, a client gets nothing from which it could go on as if nothing had been lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from .socket import OPEN, Socket

__all__ = ["Losses"]


class Losses:
    """Those that have not been told yet. One pace for all groups, `rate` sockets a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._untold: deque[Socket] = deque()
        self._some = asyncio.Event()

    def of(self, group: int, sockets: Iterable[Socket]) -> None:
        """A group lost writes: those of its sockets that can be told leave the flow now, and are told in their turn."""
        for socket in sockets:
            if socket.state == OPEN and socket.envelope and socket.member.slot.group == group and not socket.muted:
                socket.mute()
                self._untold.append(socket)
        if self._untold:
            self._some.set()

    async def run(self) -> None:
        """Tell them, for ever."""
        while True:
            await self._some.wait()
            while self._untold:
                socket = self._untold.popleft()
                if socket.state == OPEN:
                    socket.close(4002, "Redis lost writes: reload")
                    await asyncio.sleep(1 / self._rate)
            self._some.clear()
