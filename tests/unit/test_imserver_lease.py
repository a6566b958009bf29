# The lease is renewed whatever else goes on: a server that waited for its reclaims would be taken for dead itself.
# Redis is stood in for by a link that answers beats and nothing else.

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper._backend.common import Call
from imserver.app import EXIT_FENCED, Server
from imserver.lease import Fenced, LeaseKeeper
from imserver.settings import load_settings
from tests.support.ports import free_port
from tests.support.waiting import eventually

BOOT = "me"


class Link:
    """Answers beats; the first tells of an earlier boot of the name. All else waits for ever."""

    def __init__(self) -> None:
        self.beats = 0
        self.asked: list[str] = []

    async def eval(self, script: Any, group: int | None, *args: Any) -> list[Any]:
        self.asked.append(script.name)
        if script.name != "beat":
            await asyncio.Event().wait()
        self.beats += 1
        return [b"ok", b"1000", b"run", b"earlier" if self.beats == 1 else b"", b"", b"", []]

    async def gather(self, calls: list[Call]) -> list[Any]:
        return [await self.eval(call.script, call.group) for call in calls]


@pytest.fixture
async def hub():
    jobs: list[asyncio.Task[None]] = []
    made = SimpleNamespace(
        settings=SimpleNamespace(server_name="s0", lease_seconds=0.2, grace_seconds=1.0, url="ws://s0/ws"),
        stats=SimpleNamespace(fenced=0, reclaims=0),
        link=Link(),
        boot=BOOT,
        boot_raw=BOOT.encode(),
        draining=False,
        ending=False,
        open_count=0,
        topology=None,
        groups=16,
        retention=(1, 1, 1),
        redis_up=True,
        spawn=lambda job: jobs.append(asyncio.get_running_loop().create_task(job)),
    )
    yield made
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_beats_go_on_while_reclaims_and_orphans_wait_for_a_group(hub):
    keeper = LeaseKeeper(hub, None)
    running = asyncio.create_task(keeper.run())
    try:
        await eventually(lambda: hub.link.beats >= 12 and {"reclaim", "orphans"} <= set(hub.link.asked), 20)
        assert hub.link.asked.count("orphans") == 1, "the next look waits for this one"
        assert hub.redis_up
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_server_that_is_fenced_while_it_joins_ends_to_be_started_again(monkeypatch, caplog):
    ports = {"IM_PORT": str(free_port()), "IM_ADMIN_PORT": str(free_port())}
    server = Server(load_settings({"IM_SERVER_NAME": "s0", "IM_URL": "ws://s0/ws", **ports}))

    async def answered() -> None:
        pass

    async def fenced() -> None:
        raise Fenced

    monkeypatch.setattr(server.link, "ready", answered)
    monkeypatch.setattr(server.keeper, "look", answered)
    monkeypatch.setattr(server.keeper, "beat", fenced)
    assert await server.run() == EXIT_FENCED
    assert "this server was fenced" in caplog.text
