# How a server ends when what it waits for never comes; Redis and the drain are stand-ins that wait for ever.
# Real processes that are told to end are in tests/integration/test_server_signals.py.

import asyncio
from typing import Any

import pytest

from imhelper.errors import RedisUnavailableError
from imserver import app
from imserver.lease import Fenced
from imserver.settings import load_settings


async def for_ever(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(app, "drain", for_ever)
    monkeypatch.setattr(app, "END_SECONDS", 3600.0)
    made = app.Server(load_settings({"IM_SERVER_NAME": "s0"}))
    monkeypatch.setattr(made, "_goodbye", for_ever)
    return made


async def test_a_second_signal_ends_the_drain_and_the_goodbye(server):
    server._signalled()
    leaving = asyncio.create_task(server._leave())
    await asyncio.sleep(0)
    assert not leaving.done()
    server._signalled()
    assert await asyncio.wait_for(leaving, 20) == 0


async def test_a_second_signal_during_the_goodbye_ends_it_too(server, monkeypatch):
    async def empty(*_: object) -> None:
        return

    monkeypatch.setattr(app, "drain", empty)
    saying = asyncio.Event()

    async def goodbye() -> None:
        saying.set()
        await for_ever()

    monkeypatch.setattr(server, "_goodbye", goodbye)
    server._signalled()
    leaving = asyncio.create_task(server._leave())
    await asyncio.wait_for(saying.wait(), 20)
    server._signalled()
    assert await asyncio.wait_for(leaving, 20) == 0


@pytest.mark.parametrize(("error", "status"), [(Fenced(), app.EXIT_FENCED), (ValueError("broken"), app.EXIT_FAILED)])
async def test_a_task_that_ends_during_the_drain_ends_the_server(server, error, status):
    async def fail() -> None:
        raise error

    server._start("lease", fail)
    assert await asyncio.wait_for(server._leave(), 20) == status


async def test_a_group_that_is_away_keeps_the_goodbye_from_no_other(monkeypatch):
    server = app.Server(load_settings({"IM_SERVER_NAME": "s0"}))
    server.hub.groups = 4
    told: list[tuple[str, int | None]] = []

    async def run(script: Any, group: int | None, *_: object) -> None:
        if group == 1:
            raise RedisUnavailableError("its node is away")
        told.append((script.name, group))

    monkeypatch.setattr(server.link, "eval", run)
    with pytest.raises(RedisUnavailableError):
        await server._goodbye()
    assert told == [("goodbye", 0), ("goodbye", 2), ("goodbye", 3)], "and not that it is gone: the rest is reclaimed"
