# The event bus against real failures: Redis goes away, members of a consumer group die, join and share.
# Members are processes of their own; online and offline events come from scripts (`Boot`).

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from imhelper import ImHelper
from tests.integration.test_helper_servers import serve
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.redis5


@pytest.mark.parametrize("group", [None, "g"])
async def test_a_subscription_survives_redis(redis_server, group):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    events: list[str] = []
    async with (
        ImHelper(redis_server.url, timeout=20) as helper,
        await helper.event_bus(lambda c, m: events.append(c), lambda c, m: None, group=group),
    ):
        for i in range(3):
            boot.connect(await helper.prev_connect_server(f"c{i}"))
            await eventually(lambda: len(events) > i, 20)  # noqa: B023 - waited for in the same turn
            await asyncio.to_thread(redis_server.restart if i else redis_server.kill_and_restart)
    assert events == ["c0", "c1", "c2"]


MEMBER = """
    import sys, time
    from imhelper.sync import ImHelper

    url, mode = sys.argv[1:]
    helper = ImHelper(url)

    def online(client_id, metadata):
        print("on", client_id, flush=True)
        if mode == "stuck":
            time.sleep(600)

    with helper.event_bus(online, lambda c, m: print("off", c, flush=True), group="g"):
        print("ready", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def member(redis_server, tmp_path: Path):
    """A function that starts a member of the consumer group `g` as a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str = "quick") -> tuple[subprocess.Popen[bytes], Callable[[], list[str]]]:
        output = tmp_path / f"member{len(started)}.txt"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(MEMBER), redis_server.url, mode],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        wait_until(lambda: "ready" in output.read_text(), 20, "a member")
        return process, lambda: [line for line in output.read_text().splitlines() if line != "ready"]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


async def test_an_event_of_a_member_that_dies_is_given_again_in_order(redis_server, member):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    stuck, seen_by_stuck = await asyncio.to_thread(member, "stuck")
    async with ImHelper(redis_server.url) as helper:
        for name in ("ann", "bob"):
            boot.connect(await helper.prev_connect_server(name))
            await helper.disconnect(name)
        await eventually(seen_by_stuck)
        _, seen_by_other = await asyncio.to_thread(member)
        first = seen_by_stuck()[0]
        # Its lease is renewed while the callback runs: nobody else gets the event, however long that takes.
        await asyncio.sleep(7)
        client = first.split()[1]
        assert not any(line.endswith(client) for line in seen_by_other())
        stuck.send_signal(signal.SIGKILL)
        await eventually(lambda: len(seen_by_other()) == 4, 20, "what the dead member had not finished")
        for name in ("ann", "bob"):
            assert [line for line in seen_by_other() if line.endswith(name)] == [f"on {name}", f"off {name}"]


async def test_members_share_and_hand_over_without_a_loss_or_a_double(redis_server, member):
    [boot] = await asyncio.to_thread(serve, redis_server.url, "s0")
    members = [await asyncio.to_thread(member) for _ in range(3)]
    async with ImHelper(redis_server.url) as helper:
        names = [f"client-{i}" for i in range(120)]
        for i, name in enumerate(names):
            boot.connect(await helper.prev_connect_server(name))
            if i == 60:
                members.append(await asyncio.to_thread(member))
            if i > 60:
                await asyncio.sleep(0.03)

        def all_seen() -> list[str]:
            return sorted(line for _, seen in members for line in seen())

        await eventually(lambda: len(all_seen()) >= 120, 20)
        assert all_seen() == sorted(f"on {n}" for n in names)
        assert sum(bool(seen()) for _, seen in members) > 1
