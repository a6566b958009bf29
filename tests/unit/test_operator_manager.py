# Liveness means that reconciling goes on: whatever stands still makes the operator's health fail. Time is made up.

import asyncio
from typing import Any

import httpx
import pytest

from imoperator import leader, manager
from imoperator.health import start_health
from imoperator.manager import Manager
from imoperator.metrics import Metrics
from imoperator.names import Key
from imoperator.settings import Settings
from tests.support.ports import free_port


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Passed:
    """Stands for a keeper or a watcher of which only this is asked."""

    def __init__(self, passed: float = 0.0, alive: bool = True) -> None:
        self.passed, self.alive = passed, alive


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leader, "monotonic", clock)
    monkeypatch.setattr(manager, "monotonic", clock)
    return clock


@pytest.fixture
def leading(clock: Clock) -> Any:
    """An operator that leads and keeps one cluster, just now in every respect."""
    made: Any = Manager(Settings(identity="me", resync_seconds=30), None)  # type: ignore[arg-type]
    made._keepers[Key("ns", "chat")] = Passed(clock.now)
    made._watcher = Passed()
    made._elector._renewed = clock.now
    return made


def still_tried(made: Any, clock: Clock) -> None:
    """The Lease was renewed and the clusters were listed at this moment."""
    made._elector.tried = made._elector._renewed = made._tried = clock.now


def test_an_operator_that_goes_on_has_no_problems(leading, clock):
    assert leading.problems() == []
    clock.now += 100
    still_tried(leading, clock)
    assert leading.problems() == [], "a pass may take its time"


def test_each_thing_that_stands_still_is_told(leading, clock):
    clock.now += 200
    assert leading.problems() == ["the Lease is not asked for any more"], "who does not lead need not reconcile"
    leading._elector.tried = leading._elector._renewed = clock.now
    assert leading.problems() == ["the resync does not go on", "ns/chat is not reconciled any more"]
    still_tried(leading, clock)
    leading._keepers[Key("ns", "chat")].passed = clock.now
    assert leading.problems() == []
    leading._watcher.alive = False
    assert leading.problems() == ["kopf has ended"]


async def test_a_part_that_has_ended_is_told(leading):
    ended = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await ended
    leading._main = {"the election": ended}
    assert leading.problems() == ["the election has ended"]


async def test_the_probes_fail_while_there_are_problems():
    problems: list[str] = []
    port = free_port()
    runner = await start_health(port, Metrics(), lambda: problems)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]
            problems.append("the resync does not go on")
            answers = [await client.get(path) for path in ("/healthz", "/readyz")]
            assert [a.status_code for a in answers] == [503, 503]
            assert answers[0].json() == {"ok": False, "problems": problems}
            assert "imoperator_leader 0.0" in (await client.get("/metrics")).text
    finally:
        await runner.cleanup()


class Listing:
    """Lists what it is told to, and counts."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.listed, self.failing = 0, False

    async def clusters(self, _: Any) -> list[dict[str, Any]]:
        self.listed += 1
        if self.failing:
            raise OSError("no route")
        return self.items


async def test_without_any_imcluster_the_api_is_left_alone_between_the_resyncs(leading, clock):
    api = leading._api = Listing()
    leading._keepers.clear()

    async def awake() -> None:
        """As when the Lease was renewed."""
        leading._elector.tried = leading._elector._renewed = clock.now
        leading._changed.set()
        for _ in range(5):
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(leading._lead())
    try:
        for _ in range(5):
            await awake()
        assert api.listed == 1
        leading._mark(Key("ns", "new"))
        await awake()
        assert api.listed == 2, "one that is seen to come is listed at once"
        clock.now += 30
        await awake()
        assert api.listed == 3
        api.failing, clock.now = True, clock.now + 30
        for _ in range(2):
            await awake()
        api.failing = False
        for _ in range(3):
            await awake()
        assert api.listed == 6, "a list that failed is asked for again at once, and then no more"
        leading._elector._renewed = float("-inf")
        leading._changed.set()
        await asyncio.sleep(0)
        await awake()
        assert api.listed == 7, "who leads again knows nothing"
    finally:
        task.cancel()


async def test_one_that_is_made_again_at_once_is_looked_for_when_its_predecessor_is_gone(leading):
    leading._keepers.clear()
    key = Key("ns", "chat")
    ended = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    leading._tasks[key], leading._keepers[key] = ended, Passed()
    await ended
    leading._ended(key, ended)
    assert leading._keepers == {} and leading._unknown.is_set() and leading._changed.is_set()
