# The faults of a run, drawn from its seed: what is done to servers, sockets and Redis, and when it is over again.
# Each is written into the ledger, because some promises depend on what was disturbed when.

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from tests.chaos.device import Device
from tests.chaos.ledger import Connection, Fault, Ledger, now
from tests.chaos.world import Managed, World
from tests.support.waiting import eventually

__all__ = ["FAULTS", "LOSSY", "SENTINEL", "SINGLE", "Faults"]

log = logging.getLogger(__name__)

# How often each fault is drawn, relative to the others: to servers and sockets, to one Redis, to a Redis that loses
# what it acknowledged, to a primary with a replica.
_SERVERS = {"kill": 3, "blink": 2, "freeze": 2, "stutter": 1, "drain": 3, "impatient": 1, "start": 1, "cut": 3}
_REDIS = {"redis-restart": 1, "redis-kill": 1, "redis-outage": 0.7, "redis-freeze": 1, "client-kill": 1.5, "pause": 1.5}
_LOSSES = {"power": 0.7, "wipe": 0.5}
_SENTINEL = {"failover": 1.5, "switch": 1}
FAULTS: dict[str, float] = {**_SERVERS, **_REDIS, **_LOSSES, **_SENTINEL}
# What `all` means.
SINGLE, LOSSY, SENTINEL = [[*_SERVERS, *more] for more in (_REDIS, {**_REDIS, **_LOSSES}, _SENTINEL)]
LEAST_HEALTHY = 2


class Faults:
    """Draws faults until stopped; several may be under way at once."""

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        devices: list[Device],
        rng: random.Random,
        kinds: list[str],
        lease: float,
        grace: float,
    ) -> None:
        self._world = world
        self._ledger = ledger
        self._devices = devices
        self._rng = rng
        self._kinds = kinds
        self._lease = lease
        self._grace = grace
        self._redis_busy = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []

    async def run(self, seconds: float, every: tuple[float, float]) -> None:
        """Make faults for so long, one each `every` seconds, then wait until all are over."""
        deadline = now() + seconds
        while now() < deadline and self._kinds:
            await asyncio.sleep(self._rng.uniform(*every))
            kind = self._rng.choices(self._kinds, [FAULTS[k] for k in self._kinds])[0]
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
        work: dict[str, Callable[[], Coroutine[Any, Any, str | None]]] = {
            "kill": self._kill,
            "blink": self._blink,
            "freeze": self._freeze,
            "stutter": self._stutter,
            "drain": self._drain,
            "impatient": self._impatient,
            "start": self._start,
            "cut": self._cut,
            "redis-restart": self._redis_restart,
            "redis-kill": self._redis_kill,
            "redis-outage": self._redis_outage,
            "redis-freeze": self._redis_freeze,
            "power": self._power,
            "wipe": self._wipe,
            "failover": self._failover,
            "switch": self._switch,
            "client-kill": self._client_kill,
            "pause": self._pause,
        }
        fault = Fault(kind, "", now(), float("inf"))
        self._ledger.faults.append(fault)
        target = await work[kind]()
        if target is None:
            self._ledger.faults.remove(fault)
            return
        fault.target, fault.ended = target, now()

    def _note(self, text: str) -> None:
        log.info("fault: %s", text)

    def _victim(self) -> Managed | None:
        healthy = self._world.healthy
        if len(healthy) <= LEAST_HEALTHY:
            return None
        victim = self._rng.choice(healthy)
        victim.busy = True
        return victim

    # Servers.

    async def _kill(self) -> str | None:
        """kill -9; back under the same name, before or after its lease has ended."""
        return await self._kill_for(self._rng.uniform(0, 2 * self._lease))

    async def _blink(self) -> str | None:
        """kill -9, and back at once."""
        return await self._kill_for(0.0)

    async def _kill_for(self, rest: float) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        self._note(f"kill -9 {victim.name}, back in {rest:.1f} s")
        victim.rest_until = now() + rest
        self._mark_dead(victim)
        await asyncio.to_thread(victim.process.kill)
        return await self._back(victim)

    async def _back(self, victim: Managed) -> str:
        """Until it runs again and is ready."""
        began = now()
        while not (victim.process.running and await asyncio.to_thread(_is_ready, victim)):
            if now() - began > 60:
                raise AssertionError(f"{victim.name} is not ready after 60 s: {victim.process.output[-2000:]}")
            await asyncio.sleep(0.2)
        victim.busy = False
        return victim.name

    def _mark_dead(self, victim: Managed, since: float | None = None) -> list[Connection]:
        """From here on the server's sockets are as good as gone, whatever their clients believe."""
        held = [d.book.connections[-1] for d in self._devices if d.server == victim.process.url]
        for connection in held:
            connection.frozen = since or now()
        return held

    async def _freeze(self) -> str | None:
        """SIGSTOP past the lease: it is fenced, must notice when it wakes, end, and be started again."""
        victim = self._victim()
        if victim is None:
            return None
        seconds = self._lease + self._rng.uniform(0.5, 0.9) * self._grace
        self._note(f"freeze {victim.name} for {seconds:.1f} s")
        held = self._mark_dead(victim)
        victim.frozen = True
        victim.process.freeze()
        await asyncio.sleep(seconds)
        victim.process.thaw()
        thawed, ends = now(), len(victim.exits)
        for _ in range(10):
            await asyncio.sleep(self._lease)
            if not self._redis_busy or len(victim.exits) > ends:
                break
            # Only Redis can tell it what became of it.
        if len(victim.exits) == ends:
            # Nobody could judge it meanwhile (Redis was away): it goes on as if nothing had been.
            for connection in held:
                if connection.closed is None or connection.closed > thawed:
                    connection.frozen = None
        victim.frozen = False
        return await self._back(victim)

    async def _stutter(self) -> str | None:
        """SIGSTOP for less than the lease: nothing may come of it."""
        victim = self._victim()
        if victim is None:
            return None
        seconds = self._rng.uniform(0.2, 0.6) * self._lease
        self._note(f"freeze {victim.name} for {seconds:.1f} s only")
        began = now()
        victim.process.freeze()
        await asyncio.sleep(seconds)
        victim.process.thaw()
        if now() - began > 0.8 * self._lease:
            # The machine was slow: this became a freeze past the lease.
            self._mark_dead(victim, began)
        victim.busy = False
        return victim.name

    async def _drain(self) -> str | None:
        """SIGTERM, and back when it has ended."""
        return await self._drain_with(signals=1)

    async def _impatient(self) -> str | None:
        """SIGTERM twice: it ends at once, and orderly."""
        return await self._drain_with(signals=2)

    async def _drain_with(self, signals: int) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        rest = self._rng.uniform(0, self._lease)
        self._note(f"SIGTERM {victim.name} ({signals} times), back {rest:.1f} s after its end")
        victim.rest_until = float("inf")
        for _ in range(signals):
            victim.process.terminate()
            await asyncio.sleep(0.3)
        began = now()
        while victim.process.running:
            if now() - began > 60:
                raise AssertionError(f"{victim.name} does not end: {victim.process.output[-2000:]}")
            await asyncio.sleep(0.1)
        if victim.process.returncode != 0:
            self._ledger.broken_promises.append(f"{victim.name} drained and ended with {victim.process.returncode}")
        if len(self._world.current) > self._world.wanted:
            victim.retired = True
            victim.busy = False
            return victim.name
        victim.rest_until = now() + rest
        return await self._back(victim)

    async def _start(self) -> str | None:
        """One more server."""
        if len(self._world.current) >= self._world.wanted + 2:
            return None
        managed = self._world.add()
        self._note(f"start {managed.name}")
        managed.busy = True
        return await self._back(managed)

    # Sockets.

    async def _cut(self) -> str:
        """Some sockets are lost as on a bad network."""
        share = self._rng.choice((0.01, 0.05, 0.2))
        victims = [d for d in self._devices if d.connected and self._rng.random() < share]
        self._note(f"cut {len(victims)} sockets")
        for device in victims:
            device.cut()
        return f"{len(victims)} sockets"

    # Redis.

    async def _redis_restart(self) -> str | None:
        return await self._redis_down(kill=False, seconds=self._rng.uniform(0, 1.5))

    async def _redis_kill(self) -> str | None:
        return await self._redis_down(kill=True, seconds=self._rng.uniform(0, 1.5))

    async def _redis_outage(self) -> str | None:
        """Away for longer than a lease: nobody may be fenced for it."""
        return await self._redis_down(kill=True, seconds=self._lease * self._rng.uniform(1.1, 1.6))

    async def _redis_down(self, kill: bool, seconds: float) -> str | None:
        if self._redis_busy:
            return None
        self._redis_busy = True
        redis = self._world.store.primary
        self._note(f"{'kill -9' if kill else 'restart'} Redis, back in {seconds:.1f} s")
        try:
            if kill:
                await asyncio.to_thread(redis.kill)
            else:
                redis.terminate()
                await redis.wait_async()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(redis.start)
            # The next one comes when this one is digested: two in a row are one longer outage.
            await asyncio.sleep(2.0)
        finally:
            self._redis_busy = False
        return f"{seconds:.1f} s"

    async def _redis_freeze(self) -> str | None:
        """SIGSTOP: what it was sent meanwhile it carries out when it wakes, long after the senders gave up."""
        if self._redis_busy:
            return None
        self._redis_busy = True
        seconds = self._rng.uniform(0.3, 1.5 * self._lease)
        self._note(f"freeze Redis for {seconds:.1f} s")
        try:
            self._world.store.primary.freeze()
            await asyncio.sleep(seconds)
            self._world.store.primary.thaw()
            await asyncio.sleep(2.0)
        finally:
            self._redis_busy = False
        return f"{seconds:.1f} s"

    async def _power(self) -> str | None:
        """The machine of Redis loses its power: what it had not synced is gone."""
        if self._redis_busy:
            return None
        self._redis_busy = True
        seconds = self._rng.uniform(0.3, 1.2)
        self._note(f"kill -9 Redis, which loses its last {seconds:.1f} s")
        try:
            self._ledger.losses.append(now())
            await asyncio.to_thread(self._world.store.cut_power, seconds)
            await asyncio.sleep(self._rng.uniform(0, 1.0))
            await asyncio.to_thread(self._world.store.primary.start)
            await asyncio.sleep(2.0)
        finally:
            self._redis_busy = False
        return f"{seconds:.1f} s"

    async def _wipe(self) -> str | None:
        """FLUSHALL by a tired operator."""
        if self._redis_busy:
            return None
        self._note("FLUSHALL")
        self._ledger.losses.append(now())
        await asyncio.to_thread(self._world.store.primary.command, "FLUSHALL")
        return "all"

    async def _failover(self) -> str | None:
        """kill -9 of the primary; the Sentinels make the replica one, and the old one comes back as its replica."""
        return await self._change_primary(kill=True)

    async def _switch(self) -> str | None:
        """A failover by command, while everything is well."""
        return await self._change_primary(kill=False)

    async def _change_primary(self, kill: bool) -> str | None:
        store = self._world.store
        if self._redis_busy or not await asyncio.to_thread(store.replicated):
            return None
        self._redis_busy = True
        try:
            old = await asyncio.to_thread(lambda: store.primary)
            self._note(f"{'kill -9 the primary' if kill else 'SENTINEL FAILOVER'}")
            self._ledger.losses.append(now())
            if kill:
                await asyncio.to_thread(old.kill)
            else:
                await asyncio.to_thread(store.switch)
            await eventually(lambda: asyncio.to_thread(lambda: store.primary is not old), 60, "a failover")
            # While the promotion is under way, writes to the old one are lost too.
            self._ledger.losses.append(now())
            if kill:
                await asyncio.sleep(self._rng.uniform(0, 3))
                await asyncio.to_thread(old.start)
            await eventually(lambda: asyncio.to_thread(store.replicated), 60, "a replica in step again")
        finally:
            self._redis_busy = False
        return old.name

    async def _client_kill(self) -> str | None:
        """Redis cuts half of its connections."""
        if self._redis_busy:
            return None
        ids = await asyncio.to_thread(self._connection_ids)
        chosen = [i for i in ids if self._rng.random() < 0.5]
        self._note(f"CLIENT KILL of {len(chosen)} connections")
        await asyncio.to_thread(self._kill_connections, chosen)
        return f"{len(chosen)} connections"

    def _connection_ids(self) -> list[int]:
        with self._world.store.primary.client() as client:
            return [int(c["id"]) for c in client.client_list() if c["name"] != "chaos"]

    def _kill_connections(self, ids: list[int]) -> None:
        with self._world.store.primary.client() as client:
            for number in ids:
                client.client_kill_filter(_id=str(number))

    async def _pause(self) -> str | None:
        """Redis takes commands and does not answer for a while."""
        if self._redis_busy:
            return None
        milliseconds = self._rng.randint(300, int(1000 * self._lease * 0.9))
        self._note(f"CLIENT PAUSE {milliseconds}")
        await asyncio.to_thread(self._world.store.primary.command, "CLIENT", "PAUSE", milliseconds)
        await asyncio.sleep(milliseconds / 1000)
        return f"{milliseconds} ms"


def _is_ready(managed: Managed) -> bool:
    try:
        return managed.process.ready()
    except AssertionError:
        # It ended between the two questions; the supervisor starts it again.
        return False
