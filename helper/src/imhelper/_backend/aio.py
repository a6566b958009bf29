"""The asyncio way to Redis: calls of one loop turn leave together, replies come back in order, losses are repeated.
`Link` is the face; `_engine.Engine` holds what belongs to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any

from ..core.redis_url import RedisConfig
from ..core.scripts import Script
from ..core.slots import CLUSTER_GROUPS
from ..errors import ImError
from ._engine import Dedicated, Engine
from .common import Arg, Call, policy_of

__all__ = ["Dedicated", "Link"]

# A forked child must neither use nor close what it inherited (closing TLS would end the parent's session),
# so it keeps the objects alive, untouched, until it ends.
_inherited: list[Engine] = []


class Link:
    """A way to Redis for asyncio code: connects at first use, survives forks, restarts and failovers.

    Every call is repeated until it gets an answer or `timeout` seconds have passed; so a call may be executed more
    than once, and everything that goes through a Link must be safe to repeat. All replies are raw (bytes, int, list
    or None). A cancelled caller leaves no trace: its reply is read and dropped.

    Each event loop gets connections of its own, so one Link may be used from several loops.
    """

    def __init__(self, config: RedisConfig, *, prefix: str, timeout: float = 5.0) -> None:
        self.config = config
        self.prefix = prefix
        self.timeout = timeout
        self._pid = os.getpid()
        self._engines: dict[asyncio.AbstractEventLoop, Engine] = {}
        self._groups = CLUSTER_GROUPS if config.kind == "cluster" else 1

    @property
    def groups(self) -> int:
        """16 on a Redis Cluster, else 1. Certain after the first answered call, or after `ready()`."""
        if any(e.clustered for e in list(self._engines.values())):
            self._groups = CLUSTER_GROUPS
        return self._groups

    async def ready(self) -> None:
        """Find out where the primary is and whether this is a Redis Cluster.

        Raises RedisUnavailableError when no server answers within the timeout.
        """
        await self.command(None, "PING")

    async def eval(self, script: Script, group: int | None, *args: Arg) -> Any:
        """Run a script on a group's tag (None: the global tag) and return its raw reply.

        Raises RedisUnavailableError when Redis does not answer within the timeout, or refuses.
        """
        return await self._engine().submit(Call(group, args, script))

    async def command(self, group: int | None, *args: Arg) -> Any:
        """Send one command to the server of a group; the caller builds full keys. Raises as `eval` does."""
        return await self._engine().submit(Call(group, args))

    async def gather(self, calls: Sequence[Call]) -> list[Any]:
        """Make several calls in one round trip to each server concerned.

        Returns their replies in order; an element is an exception instance when its call failed.
        """
        engine = self._engine()
        futures = [engine.submit(call) for call in calls]
        replies: list[Any] = []
        try:
            # All are on their way: waiting for one after the other costs less than asyncio.gather.
            for future in futures:
                try:
                    replies.append(await future)
                except ImError as error:
                    replies.append(error)
        finally:
            for future in futures[len(replies) :]:
                future.cancel()
        return replies

    async def dedicated(
        self,
        group: int | None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of each reply, not of this call
    ) -> Dedicated:
        """Open a connection of its own to the server of a group, for blocking reads.

        `timeout` is how long a reply may take, in seconds (None: for ever). Raises RedisUnavailableError.
        """
        return await self._engine().dedicated(group, timeout)

    async def eviction_policy(self) -> str | None:
        """Redis's `maxmemory_policy`, or None when it can't be learnt."""
        reply = (await self.gather([Call(None, ("INFO", "memory"))]))[0]
        return policy_of(reply)

    async def close(self) -> None:
        """Close all connections; calls under way fail with RedisUnavailableError. A later call connects again."""
        engines = self._take_engines()
        if self._pid != os.getpid():
            _inherited.extend(engines.values())
            return
        here = asyncio.get_running_loop()
        for loop, engine in engines.items():
            if loop is here:
                await engine.close()
            elif not loop.is_closed():
                # The loop may close between the question and the call: then there is nothing left to end.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(engine.abort)

    def _engine(self) -> Engine:
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None or engine.closed or self._pid != os.getpid():
            engine = self._new_engine(loop)
        return engine

    def _new_engine(self, loop: asyncio.AbstractEventLoop) -> Engine:
        if self._pid != os.getpid():
            _inherited.extend(self._take_engines().values())
            self._pid = os.getpid()
        # Changed in place, one at a time: loops of other threads may be adding theirs.
        for closed in [at for at in list(self._engines) if at.is_closed()]:
            self._engines.pop(closed, None)
        engine = self._engines[loop] = Engine(self.config, self.prefix, self.timeout, loop)
        return engine

    def _take_engines(self) -> dict[asyncio.AbstractEventLoop, Engine]:
        taken = dict(self._engines)
        for loop in taken:
            self._engines.pop(loop, None)
        return taken

    def __repr__(self) -> str:
        return f"<imhelper link to {self.config.describe()}>"
