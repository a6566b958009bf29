# What faults act on, and what they must know of each other: Redis is disturbed by one of them at a time.
# A fault is a coroutine that answers its target for the ledger, or None when it could not be made now.

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.chaos.device import Device
from tests.chaos.ledger import Ledger
from tests.chaos.traffic import Traffic
from tests.chaos.world import World

__all__ = ["Scene", "Work"]

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[str | None]]
# The next fault of Redis comes when this one is digested: two in a row are one longer outage.
REST_SECONDS = 2.0


@dataclass
class Scene:
    """A run, as faults see it. `lease` and `grace` are the servers' settings, in seconds."""

    world: World
    ledger: Ledger
    devices: list[Device]
    traffic: Traffic
    rng: random.Random
    lease: float
    grace: float
    redis_busy: bool = False

    def note(self, text: str) -> None:
        """Tell a reader of the log what is done."""
        log.info("fault: %s", text)

    @asynccontextmanager
    async def redis(self, rest: float = REST_SECONDS) -> AsyncIterator[None]:
        """Hold Redis for one fault, and for a while after it. Check `redis_busy` first."""
        self.redis_busy = True
        try:
            yield
            await asyncio.sleep(rest)
        finally:
            self.redis_busy = False
