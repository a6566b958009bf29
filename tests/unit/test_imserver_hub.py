# What the hub lets through and when: handshakes in line begin in their turn, and an empty line wakes nobody.
# Sockets are stand-ins, and what a handshake does in Redis is left out.

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper._backend.aio import Link
from imhelper.core.redis_url import parse_redis_url
from imserver import hub as hub_module
from imserver.gate import Gate
from imserver.handshake import Wanted
from imserver.hub import Hub
from imserver.settings import load_settings
from imserver.socket import ADMITTING

WANTED = Wanted("t", 0, None, False)


class Door(Gate[Any]):
    """Counts how often it was asked who is due."""

    asked = 0

    def due(self, now: float) -> Any:
        self.asked += 1
        return super().due(now)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_waits_in_line_begins_in_turn_and_an_empty_line_wakes_nobody(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(hub_module, "GATE_SECONDS", 0)
    monkeypatch.setattr(hub_module, "monotonic", lambda: now)
    hub = Hub(load_settings({}), Link(parse_redis_url("redis://127.0.0.1"), prefix="im"))
    hub.ready = hub.redis_up = True
    begun: list[Any] = []
    monkeypatch.setattr(hub, "_start", lambda socket, wanted, answer: begun.append(socket))
    door = hub._gate = Door(rate=0.1, burst=1, room=10)
    sockets: list[Any] = [SimpleNamespace(state=ADMITTING) for _ in range(4)]
    task = asyncio.create_task(hub.run_gate())
    try:
        await turns(20)
        assert door.asked == 0, "nobody waits"
        for times in (1, 2):
            for socket in sockets:
                hub.admit(socket, WANTED, b"")
            assert len(door) >= 3
            async with asyncio.timeout(10):
                while len(begun) < 4 * times:
                    now += 10
                    await asyncio.sleep(0)
            assert begun == sockets * times
            await turns(5)
            asked = door.asked
            await turns(20)
            assert door.asked == asked, "the line is empty again"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
