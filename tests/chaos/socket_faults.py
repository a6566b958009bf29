# Faults of sockets: lost as on a bad network, or not read from while much is sent to them.
# The first are a network's fault, the second a client's.

import asyncio

from tests.chaos.device import Device
from tests.chaos.ledger import now
from tests.chaos.scene import Scene, Work

__all__ = ["SocketFaults"]

# Larger than what a server buffers for a socket and the kernels on both sides take, together.
FLOOD_MESSAGES = 80
FLOOD_BYTES = 60_000
SLOW_MEMBERS = 6
OTHER_MEMBERS = 6


class SocketFaults:
    """By kind in `work`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._floods = 0
        self.work: dict[str, Work] = {"cut": self._cut, "slow": self._slow}

    async def _cut(self) -> str:
        """Some sockets are lost as on a bad network."""
        share = self._scene.rng.choice((0.01, 0.05, 0.2))
        victims = [d for d in self._scene.devices if d.connected and self._scene.rng.random() < share]
        self._scene.note(f"cut {len(victims)} sockets")
        for device in victims:
            device.cut()
        return f"{len(victims)} sockets"

    async def _slow(self) -> str | None:
        """Some devices stop reading while a channel that they share with others is flooded; then they read again."""
        scene = self._scene
        connected = [d for d in scene.devices if d.connected and d.client.gone is None]
        if len(connected) < SLOW_MEMBERS + OTHER_MEMBERS:
            return None
        chosen = scene.rng.sample(connected, SLOW_MEMBERS + OTHER_MEMBERS)
        slow: list[Device] = chosen[:SLOW_MEMBERS]
        chan = f"flood {self._floods}"
        self._floods += 1
        # Less than what a ping may stay unanswered: these are slow, not dead.
        seconds = scene.rng.uniform(2.0, 5.0)
        scene.note(f"{len(slow)} devices do not read for {seconds:.1f} s, while {chan!r} is flooded")
        await scene.traffic.fill(chan, [d.client.number for d in chosen])
        for device in chosen:
            device.client.floods.append(now())
        paused = [d for d in slow if d.stop_reading()]
        try:
            await asyncio.gather(
                scene.traffic.flood(chan, FLOOD_MESSAGES, FLOOD_BYTES, seconds / 2), asyncio.sleep(seconds)
            )
        finally:
            for device in paused:
                device.read_again()
        return f"{len(paused)} devices"
