# The lease is renewed whatever else goes on: a server that waited for its reclaims would be taken for dead itself.
# Redis is stood in for by a link that answers beats and nothing else.

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper._backend.common import Call
from imhelper.core.topology import Limits, ServerEntry, Topology
from imhelper.errors import RedisUnavailableError, TopologyError
from imserver.app import EXIT_FENCED, Server
from imserver.lease import Fenced, LeaseKeeper
from imserver.observer import Silent
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
        settings=SimpleNamespace(
            server_name="s0", lease_seconds=0.2, grace_seconds=1.0, url="ws://s0/ws", slots=None, limits=Limits()
        ),
        stats=SimpleNamespace(fenced=0, reclaims=0, topology_refused=0),
        learnt=asyncio.Event(),
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


class Part:
    """A Redis Cluster of which one group does not answer: calls of it fail once the test gives them up."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.given_up = asyncio.Event()
        self.fenced: list[str] = []
        # By group: the boots that are taken back there.
        self.reclaimed: dict[int, list[str]] = {}

    async def eval(self, script: Any, group: int | None, *args: Any) -> Any:
        await asyncio.sleep(0)
        if script.name == "fence":
            self.fenced.append(args[0])
            return 1
        assert script.name == "reclaim" and group is not None
        if group == self.away:
            await self.given_up.wait()
            raise RedisUnavailableError("gone")
        boot, batch = args[:2]
        if batch > 1:
            self.reclaimed.setdefault(group, []).append(boot)
        return [1, 0, b"0"]

    async def gather(self, calls: list[Call]) -> list[Any]:
        return [[[b"orphan 1", b"orphan 2"], []] if c.group != self.away else RedisUnavailableError("") for c in calls]


@pytest.mark.parametrize("away", [0, 15])
async def test_the_dead_are_taken_back_in_all_groups_but_the_one_that_is_away(hub, away, monkeypatch):
    monkeypatch.setattr("imserver.lease.STAGGER_SECONDS", 0)
    hub.link = Part(away)
    keeper = LeaseKeeper(hub, None)
    hub.spawn(keeper._fence([Silent("s1", "dead 1", 7), Silent("s2", "dead 2", 7)]))
    there = set(range(16)) - {away}

    def all_of(boots: set[str]) -> bool:
        return {group for group, seen in hub.link.reclaimed.items() if boots <= set(seen)} == there

    await eventually(lambda: all_of({"dead 1", "dead 2"}), 20)
    assert hub.link.fenced == ["s1", "s2"]
    keeper._orphans = {b"orphan 1": -1000.0, b"orphan 2": -1000.0}
    hub.spawn(keeper._adopt_orphans(0.0))
    await eventually(lambda: all_of({"orphan 1", "orphan 2"}), 20)
    hub.link.given_up.set()
    await eventually(lambda: not keeper._looking)


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


SERVERS = (ServerEntry("s0", "ws://s0/ws"),)
GOOD = Topology(epoch=5, slots=128, groups=16, servers=SERVERS, table=(0,) * 128)


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(GOOD.to_json()), **fields}).encode()


@pytest.mark.parametrize(
    ("record", "epoch", "reason"),
    [
        (changed(format=9), b"6", "format 9"),
        (b'{"format":1}', b"6", "not readable"),
        (b"\xff[", b"6", "not readable"),
        (changed(slots=64, table=[0] * 64), b"6", "slots or groups"),
        (changed(groups=1), b"6", "slots or groups"),
        (GOOD.to_json().encode(), b"six\xff", "for an epoch"),
    ],
    ids=["far", "empty", "garbage", "slots", "groups", "epoch"],
)
def test_a_topology_that_cannot_be_served_by_is_refused_at_the_start_and_later_passed_over(
    hub, caplog, record, epoch, reason
):
    keeper = LeaseKeeper(hub, None)
    hub.topology = None
    if "slots or groups" not in reason:
        with pytest.raises(TopologyError, match=reason):
            keeper._learn(record, epoch)
    keeper._learn(GOOD.to_json().encode(), b"5")
    assert (hub.topology, hub.stats.topology_refused) == (GOOD, 0)
    caplog.clear()
    keeper._learn(record, epoch)
    assert (hub.topology, hub.stats.topology_refused) == (GOOD, 1)
    assert keeper._epoch_seen == epoch.decode(errors="replace"), "Redis gives it once only, so that it is told once"
    assert [r.levelname for r in caplog.records] == ["ERROR"] and reason in caplog.text
    # A newer neighbouring release's, with fields that this one does not know, is as good as any.
    keeper._learn(changed(format=2, unknown=1), b"7")
    assert (hub.topology.epoch, hub.stats.topology_refused) == (7, 0)
