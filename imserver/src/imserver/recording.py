"""Records a handshake in Redis while its caller waits for it, or not at all.
What was sent to Redis on a way that is lost may arrive minutes later, when nobody holds the socket any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imhelper._backend.aio import Link
from imhelper._backend.common import Arg
from imhelper.core import scripts

__all__ = ["record"]


async def record(link: Link, clock_ms: Callable[[], float], group: int, *args: Arg) -> list[Any]:
    """The reply of the script `connect` to these arguments. Raises RedisUnavailableError once it can't come true.

    The script gets the time on Redis's clock at which this call will have given up, and records nothing after it.
    """
    patience = link.timeout * 1000
    reply: list[Any] = await link.eval(scripts.load("connect"), group, *args, int(clock_ms() + patience))
    if reply[0] == b"late":
        # Somebody waits still: it is the clock that is another one, of another node or after a failover.
        reply = await link.eval(scripts.load("connect"), group, *args, int(int(reply[1]) + patience))
    return reply
