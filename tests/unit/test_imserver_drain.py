# Who is sent away when a part of Redis does not answer; sockets and Redis are stand-ins.
# Drains of real processes are in tests/integration/test_server_drain.py and test_server_table_drain.py.

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper.core.leases import Lease
from imhelper.core.slots import group_of
from imhelper.core.topology import ServerEntry, Topology
from imhelper.errors import RedisUnavailableError
from imserver import drain
from imserver.socket import OPEN
from tests.support.waiting import eventually

GROUPS, SLOTS, AWAY = 16, 128, 3


class Link:
    """Mints tokens, but in one group nothing is answered until the test gives it up."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()

    async def eval(self, script: Any, group: int, *args: Any) -> int:
        assert script.name == "mint"
        if group == AWAY:
            await self.given_up.wait()
            raise RedisUnavailableError("gone")
        return 1


class FakeSocket:
    """An open envelope socket of a client in a slot: notes what it is sent or closed with."""

    def __init__(self, hub: Any, number: int) -> None:
        self.hub, self.envelope, self.metadata, self.reached = hub, True, "", b"0-0"
        self.state: object = OPEN
        self.slot = number % SLOTS
        self.member = SimpleNamespace(slot=SimpleNamespace(number=self.slot), client=b"c%d" % number)
        self.got: list[str] = []

    def position(self) -> bytes:
        return b"1.1-1"

    def send(self, frame: bytes, before: bytes) -> None:
        assert b'"t":"move"' in frame
        self.got.append("move")

    def close(self, code: int, reason: str) -> None:
        self.got.append(str(code))
        self.state = "closing"
        self.hub.open_count -= 1


@pytest.fixture
async def hub():
    jobs: list[asyncio.Task[None]] = []
    servers = (ServerEntry("me", "ws://me/ws"), ServerEntry("other", "ws://other/ws"))
    made: Any = SimpleNamespace(
        settings=SimpleNamespace(server_name="me", lease_seconds=5.0, drain_rate=5000.0, drain_timeout_seconds=600.0),
        topology=Topology(1, SLOTS, GROUPS, servers, tuple(n % 2 for n in range(SLOTS))),
        link=Link(),
        groups=GROUPS,
        stats=SimpleNamespace(moves=0),
        draining=True,
        spawn=lambda job: jobs.append(asyncio.create_task(job)),
    )
    made.connected = {FakeSocket(made, n) for n in range(2 * SLOTS)}
    made.open_count = len(made.connected)
    made.jobs = jobs
    yield made
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


@pytest.fixture
def keeper():
    leases = {name: Lease(name, f"boot {name}", 1, 0.0, {}) for name in ("me", "other")}
    return SimpleNamespace(leases=leases)


async def test_sockets_of_a_group_that_is_away_hold_up_no_others(hub, keeper):
    away = {s for s in hub.connected if group_of(s.slot, GROUPS) == AWAY}
    hub.spawn(drain._empty(hub, keeper))
    await eventually(lambda: all(s.got == ["move"] for s in hub.connected - away), 20)
    assert away and all(not s.got for s in away)
    hub.link.given_up.set()
    await eventually(lambda: all(s.got == ["1012"] for s in away), 20)
    assert hub.stats.moves == len(hub.connected - away)


async def test_nobody_is_sent_away_by_a_drain_that_was_taken_back_meanwhile(hub, keeper):
    socket = next(s for s in hub.connected if group_of(s.slot, GROUPS) == AWAY)
    drain._send_away(hub, keeper, socket)
    await asyncio.sleep(0)
    hub.draining = False
    hub.link.given_up.set()
    await asyncio.gather(*hub.jobs)
    assert socket.got == []
