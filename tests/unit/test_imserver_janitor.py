# What is due is ended in bounded batches, one after the other as long as there is more, in each group for itself.
# The stand-in for Redis says how much is due; what a batch does is the script's, tested on a real one.

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from imhelper._backend.common import Call
from imhelper.core.slots import group_of, slot_of
from imhelper.errors import RedisUnavailableError
from imserver.janitor import BATCH, BATCHES, Janitor
from tests.support.waiting import eventually


class Link:
    def __init__(self, due: int) -> None:
        self.due, self.calls = due, 0

    async def eval(self, script: Any, group: int, batch: int, *args: Any) -> list[int]:
        assert (script.name, batch) == ("sweep", BATCH)
        self.calls += 1
        gone = min(batch, self.due)
        self.due -= gone
        return [gone, 0, int(gone == batch), 0]


def sweep(link: Link) -> Any:
    hub: Any = SimpleNamespace(link=link, retention=(1, 1, 1))
    return Janitor(hub)._sweep(0)


async def test_the_clients_of_a_dead_server_go_one_batch_after_the_other():
    link = Link(due=18 * BATCH + 7)
    assert await sweep(link) is False
    assert (link.due, link.calls) == (0, 19)


async def test_other_groups_have_their_turn_before_all_of_one_is_done():
    link = Link(due=10 * BATCHES * BATCH)
    assert await sweep(link) is True
    assert link.calls == BATCHES


GROUPS, SLOTS, AWAY = 16, 128, 3


def group_for(client: bytes) -> int:
    return group_of(slot_of(client, SLOTS), GROUPS)


class Part:
    """A Redis Cluster of which one group does not answer; the outbox of another holds receipts for all groups."""

    def __init__(self, outbox: list[tuple[bytes, list[bytes]]]) -> None:
        self.outbox = outbox
        self.given_up = asyncio.Event()
        self.swept: dict[int, int] = {}
        self.carried: list[bytes] = []

    async def _answer(self, group: int) -> None:
        await asyncio.sleep(0)
        if group == AWAY:
            await self.given_up.wait()
            raise RedisUnavailableError("gone")

    async def eval(self, script: Any, group: int, *args: Any) -> list[int]:
        self.swept[group] = self.swept.get(group, 0) + 1
        await self._answer(group)
        return [0, 0, 0, len(self.outbox) if group == 0 else 0]

    async def command(self, group: int, name: str, key: str, *args: Any) -> Any:
        if name == "XDEL":
            self.outbox[:] = [entry for entry in self.outbox if entry[0] not in args]
            return len(args)
        after = args[0].removeprefix(b"(")
        return [entry for entry in self.outbox if after == b"-" or entry[0] > after][: args[-1]]

    async def gather(self, calls: list[Call]) -> list[Any]:
        async def make(call: Call) -> int:
            assert call.group is not None
            await self._answer(call.group)
            self.carried.append(bytes(call.args[4]))  # type: ignore[arg-type]
            return 1

        return await asyncio.gather(*map(make, calls), return_exceptions=True)


@pytest.fixture
async def part(monkeypatch):
    monkeypatch.setattr("imserver.janitor.OWN_SECONDS", 0.001)
    monkeypatch.setattr("imserver.janitor.OTHER_SECONDS", 0.001)
    # First of all, and more than a batch, what can't be carried.
    senders = sorted((f"c{n}".encode() for n in range(24 * BATCH)), key=lambda c: group_for(c) != AWAY)
    outbox = [
        (b"%04d-0" % n, [b"r", b"id%d" % n, b"f", b"to", b"c", sender, b"s", b"d", b"t", b"s", b"p", b"hi"])
        for n, sender in enumerate(senders)
    ]
    jobs: list[asyncio.Task[None]] = []
    hub: Any = SimpleNamespace(
        link=Part(outbox),
        retention=(1, 1, 1),
        groups=GROUPS,
        slots_count=SLOTS,
        topology=None,
        tag=str,
        settings=SimpleNamespace(retain_seconds=60.0, server_name="s0"),
        spawn=lambda job: jobs.append(asyncio.create_task(job)),
    )
    jobs.append(asyncio.create_task(Janitor(hub).run()))
    yield hub.link
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_a_group_that_is_away_keeps_no_other_from_being_swept(part):
    part.outbox.clear()
    await eventually(lambda: all(part.swept.get(g, 0) > 5 for g in range(GROUPS) if g != AWAY), 20)
    assert part.swept[AWAY] == 1


async def test_receipts_for_a_group_that_is_away_hold_up_neither_sweeps_nor_other_receipts(part):
    all_of_it = list(part.outbox)
    stays = [n for n, (_, f) in enumerate(all_of_it) if group_for(f[5]) == AWAY]
    assert len(stays) > BATCH and stays[-1] == len(stays) - 1
    await eventually(lambda: part.swept.get(0, 0) > 5, 20)
    part.given_up.set()
    await eventually(lambda: len(part.outbox) == len(stays), 20)
    assert len(set(part.carried)) == len(all_of_it) - len(stays)
