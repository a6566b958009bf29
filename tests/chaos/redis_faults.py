# Faults of one Redis server: gone, frozen, out of memory, or without what it had acknowledged.
# Faults that leave it running act on one of the primaries where there are several.

import asyncio

from tests.chaos.ledger import now
from tests.chaos.scene import Scene, Work
from tests.support.redis_server import RedisServer

__all__ = ["RedisFaults"]

# What Redis may still take once its memory is bounded.
SPARE_BYTES = 100_000


class RedisFaults:
    """By kind in `work`. One at a time."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.work: dict[str, Work] = {
            "redis-restart": self._restart,
            "redis-kill": self._kill,
            "redis-outage": self._outage,
            "redis-freeze": self._freeze,
            "power": self._power,
            "wipe": self._wipe,
            "client-kill": self._client_kill,
            "pause": self._pause,
            "maxmemory": self._maxmemory,
        }

    async def _some_primary(self) -> RedisServer:
        return self._scene.rng.choice(await asyncio.to_thread(self._scene.world.store.primaries))

    async def _restart(self) -> str:
        return await self._down(kill=False, seconds=self._scene.rng.uniform(0, 1.5))

    async def _kill(self) -> str:
        return await self._down(kill=True, seconds=self._scene.rng.uniform(0, 1.5))

    async def _outage(self) -> str:
        """Away for longer than a lease: nobody may be fenced for it."""
        return await self._down(kill=True, seconds=self._scene.lease * self._scene.rng.uniform(1.1, 1.6))

    async def _down(self, kill: bool, seconds: float) -> str:
        redis = await self._some_primary()
        self._scene.note(f"{'kill -9' if kill else 'restart'} Redis, back in {seconds:.1f} s")
        if kill:
            await asyncio.to_thread(redis.kill)
        else:
            redis.terminate()
            await redis.wait_async()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(redis.start)
        return f"{seconds:.1f} s"

    async def _freeze(self) -> str:
        """SIGSTOP: what it was sent meanwhile it carries out when it wakes, long after the senders gave up."""
        seconds = self._scene.rng.uniform(0.3, 1.5 * self._scene.lease)
        redis = await self._some_primary()
        self._scene.note(f"freeze Redis for {seconds:.1f} s")
        redis.freeze()
        await asyncio.sleep(seconds)
        redis.thaw()
        return f"{seconds:.1f} s"

    async def _power(self) -> str:
        """The machine of Redis loses its power: what it had not synced is gone."""
        seconds = self._scene.rng.uniform(0.3, 1.2)
        self._scene.note(f"kill -9 Redis, which loses its last {seconds:.1f} s")
        self._scene.ledger.losses.append(now())
        await asyncio.to_thread(self._scene.world.store.cut_power, seconds)
        await asyncio.sleep(self._scene.rng.uniform(0, 1.0))
        await asyncio.to_thread((await self._some_primary()).start)
        return f"{seconds:.1f} s"

    async def _wipe(self) -> str:
        """FLUSHALL by a tired operator."""
        redis = await self._some_primary()
        self._scene.note("FLUSHALL")
        self._scene.ledger.losses.append(now())
        await asyncio.to_thread(redis.command, "FLUSHALL")
        return "all"

    async def _client_kill(self) -> str:
        """Redis cuts half of the connections that clients have to it."""
        redis = await self._some_primary()
        ids = await asyncio.to_thread(_connections, redis)
        chosen = [i for i in ids if self._scene.rng.random() < 0.5]
        self._scene.note(f"CLIENT KILL of {len(chosen)} connections")
        await asyncio.to_thread(_kill_connections, redis, chosen)
        return f"{len(chosen)} connections"

    async def _pause(self) -> str:
        """Redis takes commands and does not answer for a while."""
        redis = await self._some_primary()
        milliseconds = self._scene.rng.randint(300, int(1000 * self._scene.lease * 0.9))
        self._scene.note(f"CLIENT PAUSE {milliseconds}")
        await asyncio.to_thread(redis.command, "CLIENT", "PAUSE", milliseconds)
        await asyncio.sleep(milliseconds / 1000)
        return f"{milliseconds} ms"

    async def _maxmemory(self) -> str:
        """Redis is full: it refuses what needs memory until somebody gives it more."""
        seconds = self._scene.rng.uniform(1.0, 2 * self._scene.lease)
        servers = await asyncio.to_thread(self._scene.world.store.primaries)
        self._scene.note(f"maxmemory is reached for {seconds:.1f} s")
        await asyncio.to_thread(_bound, servers)
        try:
            await asyncio.sleep(seconds)
        finally:
            for server in servers:
                await asyncio.to_thread(server.command, "CONFIG", "SET", "maxmemory", 0)
        return f"{seconds:.1f} s"


def _connections(redis: RedisServer) -> list[int]:
    with redis.client() as client:
        return [int(c["id"]) for c in client.client_list() if not set(c["flags"]) & set("SM")]


def _kill_connections(redis: RedisServer, ids: list[int]) -> None:
    with redis.client() as client:
        for number in ids:
            client.client_kill_filter(_id=str(number))


def _bound(servers: list[RedisServer]) -> None:
    for server in servers:
        with server.client() as client:
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used + SPARE_BYTES)
