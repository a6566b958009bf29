# Faults that make another Redis server the primary of some keys: failovers of both kinds, and hash slots that move.
# A failover may lose what was acknowledged; an orderly switch of a Redis Cluster and a move of slots may not.

import asyncio

from tests.chaos.cluster import ClusterStore
from tests.chaos.ledger import now
from tests.chaos.scene import Scene, Work
from tests.chaos.sentinel import SentinelStore
from tests.support.waiting import eventually

__all__ = ["Failovers"]

PATIENCE_SECONDS = 60


class Failovers:
    """By kind in `work`. One at a time, and each ends when replicas are in step again."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.work: dict[str, Work] = {
            "failover": self._failover,
            "switch": self._switch,
            "cluster-failover": self._cluster_failover,
            "cluster-switch": self._cluster_switch,
            "reshard": self._reshard,
        }

    # Sentinel.

    async def _failover(self) -> str | None:
        """kill -9 of the primary; the Sentinels make the replica one, and the old one comes back as its replica."""
        return await self._change_primary(kill=True)

    async def _switch(self) -> str | None:
        """A failover by command, while everything is well."""
        return await self._change_primary(kill=False)

    async def _change_primary(self, kill: bool) -> str | None:
        store, losses = self._scene.world.store, self._scene.ledger.losses
        assert isinstance(store, SentinelStore)
        if not await asyncio.to_thread(store.replicated):
            return None
        old = await asyncio.to_thread(lambda: store.primary)
        self._scene.note(f"{'kill -9 the primary' if kill else 'SENTINEL FAILOVER'}")
        losses.append(now())
        if kill:
            await asyncio.to_thread(old.kill)
        else:
            await asyncio.to_thread(store.switch)
        await eventually(lambda: asyncio.to_thread(lambda: store.primary is not old), PATIENCE_SECONDS, "a failover")
        # While the promotion is under way, writes to the old one are lost too.
        losses.append(now())
        if kill:
            await asyncio.sleep(self._scene.rng.uniform(0, 3))
            await asyncio.to_thread(old.start)
        await eventually(lambda: asyncio.to_thread(store.replicated), PATIENCE_SECONDS, "a replica in step again")
        return old.name

    # Redis Cluster.

    async def _cluster_failover(self) -> str | None:
        """kill -9 of a primary; its replica is promoted, and the old one comes back as its replica."""
        store, losses = self._cluster(), self._scene.ledger.losses
        if not await asyncio.to_thread(store.replicated):
            return None
        old = self._scene.rng.choice(await asyncio.to_thread(store.primaries))
        self._scene.note(f"kill -9 {old.name} of the Redis Cluster")
        losses.append(now())
        new = await asyncio.to_thread(store.replica_of, old)
        await asyncio.to_thread(old.kill)
        await eventually(lambda: asyncio.to_thread(store.leads, new), PATIENCE_SECONDS, f"{new.name} in charge")
        losses.append(now())
        await asyncio.sleep(self._scene.rng.uniform(0, 3))
        await asyncio.to_thread(old.start)
        await self._in_step(store)
        return old.name

    async def _cluster_switch(self) -> str | None:
        """CLUSTER FAILOVER: the primary waits until its replica has everything. Nothing is lost; it may be told."""
        store = self._cluster()
        if not await asyncio.to_thread(store.replicated):
            return None
        old = self._scene.rng.choice(await asyncio.to_thread(store.primaries))
        new = await asyncio.to_thread(store.replica_of, old)
        self._scene.note(f"CLUSTER FAILOVER from {old.name} to {new.name}")
        self._scene.ledger.switches.append(now())
        await asyncio.to_thread(new.command, "CLUSTER", "FAILOVER")
        await eventually(lambda: asyncio.to_thread(store.leads, new), PATIENCE_SECONDS, f"{new.name} in charge")
        await self._in_step(store)
        return old.name

    async def _reshard(self) -> str | None:
        """Hash slots that hold keys of ours move to another primary, in one of the two ways. Nothing may be lost."""
        store = self._cluster()
        if not await asyncio.to_thread(store.replicated):
            return None
        tags = self._scene.rng.sample(store.every_tag, self._scene.rng.randint(1, 3))
        atomic = self._scene.rng.random() < 0.3
        self._scene.note(f"{'CLUSTER MIGRATESLOTS' if atomic else 'MIGRATE'} of {', '.join(tags)}")
        for tag in tags:
            old = await asyncio.to_thread(store.holder, tag)
            others = [s for s in await asyncio.to_thread(store.primaries) if s is not old]
            new = self._scene.rng.choice(others)
            await asyncio.to_thread(store.migrate if atomic else store.move, tag, old, new)
        await self._in_step(store)
        return ", ".join(tags)

    def _cluster(self) -> ClusterStore:
        store = self._scene.world.store
        assert isinstance(store, ClusterStore)
        return store

    async def _in_step(self, store: ClusterStore) -> None:
        await eventually(lambda: asyncio.to_thread(store.replicated), PATIENCE_SECONDS, "a whole cluster again")
