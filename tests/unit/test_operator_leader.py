# The operator's election around its end, with a made-up clock and a Lease in memory.
# The operator that goes must not lead again; the one that is installed next must not wait for ten minutes.

import asyncio
import copy
from typing import Any

import httpx2
import pytest
from lightkube import ApiError
from lightkube.resources.coordination_v1 import Lease

from imoperator import leader
from imoperator.leader import Elector
from imoperator.manager import Manager
from imoperator.settings import Settings


class Leases:
    """Stands for the API: one Lease, as the last call left it."""

    def __init__(self) -> None:
        self.lease: Lease | None = None

    async def get(self, *_: Any, **__: Any) -> Lease:
        if self.lease is None:
            raise ApiError(response=httpx2.Response(404, json={"kind": "Status", "code": 404, "message": "not found"}))
        return copy.deepcopy(self.lease)

    async def create(self, lease: Lease) -> None:
        self.lease = lease

    async def replace(self, lease: Lease) -> None:
        self.lease = lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(leader, "monotonic", clock)
    return clock


async def _led_after(elector: Elector, clock: Clock, most: float) -> float | None:
    """After how many seconds of trying each second the elector leads; None when it does not by `most`."""
    for second in range(int(most)):
        await elector._try()
        if elector.leading:
            return float(second)
        clock.now += 1
    return None


def _elector(leases: Leases, identity: str) -> Elector:
    return Elector(leases, "im-system", "imcluster", identity)  # type: ignore[arg-type]


async def test_the_uninstalled_operator_does_not_lead_again(clock):
    leases = Leases()
    old = _elector(leases, "old")
    assert await _led_after(old, clock, 1) == 0
    await _elector(leases, "hook").seize(600)
    assert await _led_after(old, clock, 500) is None
    assert await _led_after(old, clock, 200) is not None, "a failed uninstallation must not end the operator for ever"


async def test_an_operator_installed_anew_leads_soon(clock):
    leases = Leases()
    assert await _led_after(_elector(leases, "old"), clock, 1) == 0
    await _elector(leases, "hook").seize(600)
    clock.now += 3
    after = await _led_after(_elector(leases, "new"), clock, 60)
    assert after is not None and after >= leader.ANEW_SECONDS


async def test_who_gives_the_lease_back_does_not_say_any_more_that_it_leads(monkeypatch):
    leases = Leases()
    manager = Manager(Settings(identity="me"), leases)  # type: ignore[arg-type]
    said: list[float | None] = []

    def gauge() -> float | None:
        return manager._metrics.registry.get_sample_value("imoperator_leader")

    async def replace(lease: Lease) -> None:
        said.append(gauge())
        leases.lease = lease

    monkeypatch.setattr(leases, "replace", replace)
    await manager._elector._try()
    manager._metrics.leader.set(1)
    ended = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    manager._main = {"the election": ended, "the resync": ended}

    class Health:
        async def cleanup(self) -> None: ...

    await manager._end(Health())  # type: ignore[arg-type]
    assert leases.lease is not None and leases.lease.spec is not None
    assert (leases.lease.spec.holderIdentity, said) == ("", [0.0])
