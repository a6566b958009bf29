"""The connections that a blocking `Link` keeps between calls, by address; any number of threads may ask at once.
It opens none itself: whoever finds none opens one, without holding up the others."""

from __future__ import annotations

import threading

from ..core.redis_url import Address
from ._connect_blocking import RawConnection, drop

__all__ = ["Pool"]

KEPT_IDLE = 16


class Pool:
    """Idle connections. One that a call has taken comes back when it ends, unless the pool was closed meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Address, list[RawConnection]] = {}
        self.generation = 0

    def addresses(self) -> list[Address]:
        """Where connections are, or were."""
        with self._lock:
            return list(self._idle)

    def take(self, address: Address) -> RawConnection | None:
        """An idle connection to an address, or None."""
        with self._lock:
            idle = self._idle.get(address)
            return idle.pop() if idle else None

    def give_back(self, address: Address, connection: RawConnection, generation: int) -> None:
        """Keep a connection for the next call; `generation` is the pool's own from when the call began."""
        with self._lock:
            idle = self._idle.setdefault(address, []) if generation == self.generation else None
            if idle is not None and len(idle) < KEPT_IDLE:
                idle.append(connection)
                return
        drop(connection)

    def forget(self, address: Address) -> None:
        """Close what is idle to an address."""
        with self._lock:
            idle = self._idle.pop(address, [])
        for connection in idle:
            drop(connection)

    def close(self) -> None:
        """Close what is idle, and whatever else calls under way have taken as soon as it comes back."""
        with self._lock:
            idle, self._idle = self._idle, {}
            self.generation += 1
        for connections in idle.values():
            for connection in connections:
                drop(connection)
