"""Bounds what clients say: one that says more than its share is not listened to for a while.
What it says waits in its own kernel and is not lost; nobody else waits for it."""

from __future__ import annotations

import asyncio

__all__ = ["RECEIVE_BYTES", "SHARE_BYTES", "TICK_SECONDS", "Heard"]

# What a connection may say a tick, 64 KiB a second: some thousand acks, and a client needs one a message at most.
# A flood of pings at that pace costs a few percent of a CPU; without a bound, one connection takes all of it.
TICK_SECONDS = 0.25
SHARE_BYTES = 16384
# The kernel's receive buffer of each connection. It bounds what one read brings, and what a connection that is not
# listened to holds. (SO_RCVBUF of socket(7), inherited from the listening socket)
RECEIVE_BYTES = 16384


class Heard:
    """Counts by connection. One that is quiet costs nothing."""

    def __init__(self) -> None:
        self._debts: dict[asyncio.Transport, int] = {}

    @property
    def owing(self) -> int:
        """How many connections have said something that ticks have not paid for."""
        return len(self._debts)

    def add(self, transport: asyncio.Transport, size: int) -> None:
        """Count bytes that came. Over its share, a connection is not read until ticks have paid for it."""
        debt = self._debts[transport] = self._debts.get(transport, 0) + size
        if debt > SHARE_BYTES and not transport.is_closing():
            transport.pause_reading()

    def tick(self) -> None:
        """Give each connection a share, and listen again to those that have one left."""
        owing = {}
        for transport, debt in self._debts.items():
            if debt > SHARE_BYTES and not transport.is_closing():
                owing[transport] = debt - SHARE_BYTES
                if debt <= 2 * SHARE_BYTES:
                    transport.resume_reading()
        self._debts = owing
