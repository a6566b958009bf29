# Business services that listen to the event bus during a run: one alone, and a group whose members come and go.
# What each client's callbacks told must be what the stream of events says, in that order.

import asyncio
import random
from collections import defaultdict

from imhelper import ImHelper, Subscription
from imhelper.errors import RedisUnavailableError
from tests.chaos.ledger import Ledger

__all__ = ["Listeners"]

GROUP = "chaos"
MEMBERS = 2


class Listeners:
    """`start` before the first client connects, `stop` when everything has settled."""

    def __init__(self, helper: ImHelper, rng: random.Random) -> None:
        self._helper = helper
        self._rng = rng
        self._alone: dict[str, list[str]] = defaultdict(list)
        self._group: dict[str, list[str]] = defaultdict(list)
        self._subscriptions: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe."""
        self._subscriptions = [await self._subscribe(self._alone, None)]
        for _ in range(MEMBERS):
            self._subscriptions.append(await self._subscribe(self._group, GROUP))
        self._task = asyncio.get_running_loop().create_task(self._change_members())

    async def _subscribe(self, told: dict[str, list[str]], group: str | None) -> Subscription:
        def online(client_id: str, metadata: str) -> None:
            told[client_id].append("on" if metadata == f"meta of {client_id}" else f"on with {metadata!r}")

        def offline(client_id: str, metadata: str) -> None:
            told[client_id].append("off" if metadata == f"meta of {client_id}" else f"off with {metadata!r}")

        while True:
            try:
                return await self._helper.event_bus(online, offline, group=group)
            except RedisUnavailableError:
                await asyncio.sleep(0.3)

    async def _change_members(self) -> None:
        """One member of the group leaves and another one joins, again and again."""
        while True:
            await asyncio.sleep(self._rng.uniform(3, 9))
            await self._subscriptions.pop(1).close()
            self._subscriptions.append(await self._subscribe(self._group, GROUP))

    async def stop(self) -> None:
        """Unsubscribe."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for subscription in self._subscriptions:
            await subscription.close()

    def wrong(self, ledger: Ledger) -> list[str]:
        """What was told and did not happen, or the reverse. An event given again at once is none: at least once."""
        found = []
        for who, told in (("a subscriber", self._alone), ("the group", self._group)):
            for client in ledger.clients:
                happened = [kind for _, kind in ledger.events.get(client.number, [])]
                heard = told[client.client_id]
                once = [kind for at, kind in enumerate(heard) if not at or heard[at - 1] != kind]
                if once != happened:
                    found.append(f"{who} was told {heard} of {client.client_id!r}, and it was {happened}")
        return found
