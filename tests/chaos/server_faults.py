# Faults of servers: killed, frozen, told to end, and new ones.
# Two healthy ones are always left: with none alive nobody is reclaimed, and that is no promise.

import asyncio

from tests.chaos.ledger import Connection, now
from tests.chaos.scene import Scene, Work
from tests.chaos.world import Managed

__all__ = ["ServerFaults"]

LEAST_HEALTHY = 2


class ServerFaults:
    """By kind in `work`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.work: dict[str, Work] = {
            "kill": self._kill,
            "blink": self._blink,
            "freeze": self._freeze,
            "stutter": self._stutter,
            "drain": self._drain,
            "impatient": self._impatient,
            "start": self._start,
        }

    def _victim(self) -> Managed | None:
        healthy = self._scene.world.healthy
        if len(healthy) <= LEAST_HEALTHY:
            return None
        victim = self._scene.rng.choice(healthy)
        victim.busy = True
        return victim

    async def _kill(self) -> str | None:
        """kill -9; back under the same name, before or after its lease has ended."""
        return await self._kill_for(self._scene.rng.uniform(0, 2 * self._scene.lease))

    async def _blink(self) -> str | None:
        """kill -9, and back at once."""
        return await self._kill_for(0.0)

    async def _kill_for(self, rest: float) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        self._scene.note(f"kill -9 {victim.name}, back in {rest:.1f} s")
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
        held = [d.book.connections[-1] for d in self._scene.devices if d.server == victim.process.url]
        for connection in held:
            connection.frozen = since or now()
        return held

    async def _freeze(self) -> str | None:
        """SIGSTOP past the lease: it is fenced, must notice when it wakes, end, and be started again."""
        victim = self._victim()
        if victim is None:
            return None
        seconds = self._scene.lease + self._scene.rng.uniform(0.5, 0.9) * self._scene.grace
        self._scene.note(f"freeze {victim.name} for {seconds:.1f} s")
        began, fenced = now(), _fenced(victim)
        self._mark_dead(victim)
        victim.frozen = True
        victim.process.freeze()
        await asyncio.sleep(seconds)
        # Some had their answer on its way when it froze.
        held = self._mark_dead(victim, began)
        victim.process.thaw()
        await self._found_out(victim, held, fenced)
        victim.frozen = False
        return await self._back(victim)

    async def _found_out(self, victim: Managed, held: list[Connection], fenced: int) -> None:
        """Wait until a server that has just woken knows whether it was fenced."""
        thawed = now()
        for _ in range(10):
            await asyncio.sleep(self._scene.lease)
            if not self._scene.redis_busy or _fenced(victim) > fenced:
                break
            # Only Redis can tell it what became of it.
        if _fenced(victim) == fenced:
            # Nobody judged it meanwhile (Redis was away, or it was short enough): it goes on as if nothing had been.
            for connection in held:
                if connection.closed is None or connection.closed > thawed:
                    connection.frozen = None

    async def _stutter(self) -> str | None:
        """SIGSTOP for less than the lease: nothing may come of it."""
        victim = self._victim()
        if victim is None:
            return None
        seconds = self._scene.rng.uniform(0.2, 0.6) * self._scene.lease
        self._scene.note(f"freeze {victim.name} for {seconds:.1f} s only")
        began, fenced = now(), _fenced(victim)
        victim.process.freeze()
        await asyncio.sleep(seconds)
        victim.process.thaw()
        if now() - began > 0.8 * self._scene.lease:
            # The machine was slow: this may have become a freeze past the lease.
            await self._found_out(victim, self._mark_dead(victim, began), fenced)
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
        rest = self._scene.rng.uniform(0, self._scene.lease)
        self._scene.note(f"SIGTERM {victim.name} ({signals} times), back {rest:.1f} s after its end")
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
            broken = f"{victim.name} drained and ended with {victim.process.returncode}"
            self._scene.ledger.broken_promises.append(broken)
        if len(self._scene.world.current) > self._scene.world.wanted:
            victim.retired = True
            victim.busy = False
            return victim.name
        victim.rest_until = now() + rest
        return await self._back(victim)

    async def _start(self) -> str | None:
        """One more server."""
        if len(self._scene.world.current) >= self._scene.world.wanted + 2:
            return None
        managed = self._scene.world.add()
        self._scene.note(f"start {managed.name}")
        managed.busy = True
        return await self._back(managed)


def _fenced(managed: Managed) -> int:
    """How often it has said that it was; its end may take a while longer."""
    return managed.process.output.count("this server was fenced")


def _is_ready(managed: Managed) -> bool:
    try:
        return managed.process.ready()
    except AssertionError:
        # It ended between the two questions; the supervisor starts it again.
        return False
