"""How many sockets a process can hold: each is an open file, and so are the connections to Redis.
Without files left a server could neither refuse a client, nor answer a probe, nor reach Redis again."""

from __future__ import annotations

import resource
from typing import Generic, TypeVar

__all__ = ["OURS", "SPARE", "Room", "open_files"]

T = TypeVar("T")

# Kept for what is no client: Redis, the admin port, files.
OURS = 256
# Sockets beyond those that may be open: requests that arrive or wait, clients that are told to go elsewhere.
SPARE = 1024


class Room(Generic[T]):
    """Room for `connections` open WebSockets and for `sockets` in whatever state.

    Of those that have sent no request that could be taken the one that came first goes when there is no room: who
    means to speak does so at once, and who holds connections without a word keeps nobody out.
    """

    def __init__(self, wanted: int, files: int) -> None:
        free = max(2, files - OURS)
        self.sockets = min(wanted + SPARE, free)
        self.connections = min(wanted, free - free // 16)
        self._silent: dict[T, None] = {}

    def come(self, socket: T, connected: int) -> T | None:
        """A socket has come, and with it there are so many. Returns the one that has to go for it, if any."""
        self._silent[socket] = None
        if connected <= self.sockets:
            return None
        first = next(iter(self._silent))
        del self._silent[first]
        return first

    def spoke(self, socket: T) -> None:
        """It has sent its request, or is gone."""
        self._silent.pop(socket, None)


def open_files(wanted: int) -> int:
    """How many files this process may open, once its soft limit is as high as need be for so many connections.

    Container runtimes and systemd start a process with 1,024, for the sake of programs that use select(2), and leave
    it to others to raise that to the hard limit. (https://0pointer.net/blog/file-descriptor-limits.html)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Room keeps a sixteenth of what is free for sockets that are not open.
    need = wanted + max(SPARE, wanted // 8) + OURS
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return need if soft == resource.RLIM_INFINITY else soft
