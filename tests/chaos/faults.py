# The faults of a run, drawn from its seed: which kinds there are, how often each comes, and that each is written down.
# What each does is in server_faults.py, socket_faults.py, redis_faults.py and failovers.py.

import asyncio

from tests.chaos.failovers import Failovers
from tests.chaos.ledger import Fault, now
from tests.chaos.redis_faults import RedisFaults
from tests.chaos.scene import Scene, Work
from tests.chaos.server_faults import ServerFaults
from tests.chaos.socket_faults import SocketFaults

__all__ = ["CLUSTER", "FAULTS", "LOSSY", "SENTINEL", "SINGLE", "Faults"]

# How often each fault is drawn, relative to the others: to servers and sockets, to one Redis, to a Redis that loses
# what it acknowledged, to a primary with a replica, to a Redis Cluster.
_SERVERS = {"kill": 3, "blink": 2, "freeze": 2, "stutter": 1, "drain": 3, "impatient": 1, "start": 1}
_SOCKETS = {"cut": 3, "slow": 1}
_GONE = {"redis-restart": 1, "redis-kill": 1, "redis-outage": 0.7, "redis-freeze": 1}
_THERE = {"client-kill": 1.5, "pause": 1.5, "maxmemory": 1}
_LOSSES = {"power": 0.7, "wipe": 0.5}
_SENTINEL = {"failover": 1.5, "switch": 1}
_CLUSTER = {"cluster-failover": 1.5, "cluster-switch": 1, "reshard": 2.5}
_ALWAYS = {**_SERVERS, **_SOCKETS}
FAULTS: dict[str, float] = {**_ALWAYS, **_GONE, **_THERE, **_LOSSES, **_SENTINEL, **_CLUSTER}
# What `all` means.
SINGLE = [*_ALWAYS, *_GONE, *_THERE]
LOSSY = [*SINGLE, *_LOSSES]
SENTINEL = [*_ALWAYS, "client-kill", "maxmemory", *_SENTINEL]
CLUSTER = [*_ALWAYS, *_THERE, *_CLUSTER]


class Faults:
    """Draws faults until stopped; several may be under way at once, but only one of Redis."""

    def __init__(self, scene: Scene, kinds: list[str]) -> None:
        self._scene = scene
        self._kinds = kinds
        self._redis: dict[str, Work] = {**RedisFaults(scene).work, **Failovers(scene).work}
        self._work: dict[str, Work] = {**ServerFaults(scene).work, **SocketFaults(scene).work, **self._redis}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []

    async def run(self, seconds: float, every: tuple[float, float]) -> None:
        """Make faults for so long, one each `every` seconds, then wait until all are over."""
        deadline, rng = now() + seconds, self._scene.rng
        while now() < deadline and self._kinds:
            await asyncio.sleep(rng.uniform(*every))
            kind = rng.choices(self._kinds, [FAULTS[k] for k in self._kinds])[0]
            if kind in self._redis and self._scene.redis_busy:
                continue
            task = asyncio.get_running_loop().create_task(self._make(kind))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(max(0.0, deadline - now()))
        if self._failed:
            raise self._failed[0]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed.append(error)

    async def _make(self, kind: str) -> None:
        fault = Fault(kind, "", now(), float("inf"))
        self._scene.ledger.faults.append(fault)
        if kind in self._redis:
            async with self._scene.redis():
                target = await self._work[kind]()
        else:
            target = await self._work[kind]()
        if target is None:
            self._scene.ledger.faults.remove(fault)
            return
        fault.target, fault.ended = target, now()
