"""The end of an ImCluster: its sockets are closed with 1012, its pods go, then its keys in Redis, then the finalizer.
Each step has a deadline, so that neither a Redis that is gone nor a node that is gone keeps it for ever."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from imhelper.core.topology import DRAINING, ServerEntry
from imhelper.errors import RedisUnavailableError

from .api import Api
from .children import whose
from .model import Cluster, RedisView, Seen
from .redis import Redis, Taken
from .workload import END_SECONDS

__all__ = ["Ending"]

log = logging.getLogger(__name__)

# How long Redis has for the removal of the keys once the pods are gone.
WIPE_SECONDS = 60.0
REDIS_PATIENCE = 15.0


class Ending:
    """Ends one cluster step by step; each call of `step` does what is next."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._closing: set[asyncio.Task[None]] = set()
        self._gone_at: float | None = None

    def leave(self, redis: Redis | None) -> None:
        """Close a link that is no longer used, without waiting for it."""
        if redis is None:
            return
        task = asyncio.get_running_loop().create_task(redis.close())
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("an old link to Redis could not be closed: %s", task.exception())

    async def step(
        self, cluster: Cluster, seen: Seen, view: RedisView | None, redis: Redis | None, *, foreign: bool
    ) -> bool:
        """Go on ending. `redis` is None while the prefix is not held; `foreign` says that it is somebody else's.

        True when the finalizer is gone.
        """
        if not cluster.has_finalizer:
            return True
        if redis is not None and view is not None:
            await self._send_nobody_here(view, redis)
        work = await self._api.child("StatefulSet", cluster.key, cluster.key.name)
        if work is not None and not whose(cluster, work):
            await self._api.remove("StatefulSet", cluster.key, cluster.key.name)
        limit = (cluster.deleting_at or seen.at) + cluster.spec.drain.timeout_seconds + 2 * END_SECONDS
        if seen.pods and seen.at < limit:
            return False
        if self._gone_at is None:
            self._gone_at = seen.at
        if redis is not None and view is not None:
            try:
                async with asyncio.timeout(WIPE_SECONDS):
                    removed = await redis.wipe()
                log.info("%s: %d keys removed from Redis", cluster.key, removed)
            except (TimeoutError, RedisUnavailableError, Taken) as error:
                if seen.at - self._gone_at < REDIS_PATIENCE:
                    log.warning("%s: the keys are not removed yet: %s", cluster.key, error)
                    return False
                await self._give_up(cluster)
        elif not foreign:
            if seen.at - self._gone_at < REDIS_PATIENCE:
                return False
            await self._give_up(cluster)
        else:
            log.info("%s: no keys are removed from Redis: the prefix is not this ImCluster's", cluster.key)
        await self._api.set_finalizer(cluster.key, cluster.uid, False)
        return True

    async def let_go(self, cluster: Cluster, why: str) -> None:
        """End a cluster whose Redis is not known: its children go with it, its keys are left."""
        if cluster.has_finalizer:
            await self._keys_left(cluster, f"the keys in Redis are left there: {why}")
            await self._api.set_finalizer(cluster.key, cluster.uid, False)

    async def _give_up(self, cluster: Cluster) -> None:
        prefix = cluster.spec.redis.prefix
        await self._keys_left(
            cluster, f"Redis could not be asked to remove the keys under the prefix {prefix!r}; they are left there"
        )

    async def _keys_left(self, cluster: Cluster, message: str) -> None:
        log.warning("%s: %s", cluster.key, message)
        await self._api.tell(cluster, "KeysLeft", message, warning=True)

    async def _send_nobody_here(self, view: RedisView, redis: Redis) -> None:
        """Mark every server as draining: then no server has another's URL to give, and closes with 1012."""
        topology = view.topology
        if topology is None or all(s.state == DRAINING for s in topology.servers):
            return
        servers = tuple(ServerEntry(s.name, s.url, DRAINING) for s in topology.servers)
        await redis.publish(replace(topology, servers=servers), view)
