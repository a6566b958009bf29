# `make demo` as a user runs it: it comes up, carries a chat, mends what dies, and leaves nothing behind.
# What it must not do is tested as well: start over a port that is taken, or hide why it can't go on.

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, wait_until
from tests.support.webchat import ROOT, Service
from tests.support.ws import open_socket

SERVERS = 2


@pytest.fixture
def redis_flavour() -> str:
    """The demo brings a Valkey of its own; a user's own Redis may be any."""
    return "valkey"


def free_row(length: int) -> int:
    """The first of `length` ports in a row on which nobody listens."""
    for _ in range(100):
        first = free_port()
        try:
            for port in range(first + 1, first + length):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free row of ports")


class Demo(Process):
    """One run of tools/demo.py on ports of its own, its temporary files below `folder`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.base = free_row(SERVERS)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("IM_", "WEBCHAT_"))}
        own = {
            "PORT": str(self.port),
            "BASE_PORT": str(self.base),
            "ADMIN_BASE_PORT": str(free_row(SERVERS)),
            "SERVERS": str(SERVERS),
            "TMPDIR": str(self.temporary),
        }
        command = [sys.executable, str(ROOT / "tools" / "demo.py")]
        super().__init__("demo", command, folder / "demo.log", {**inherited, **own, **settings})

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.kill(self.pid, signal.SIGINT)

    def pids(self) -> list[int]:
        """The processes that it said it started, ended ones included."""
        return [int(pid) for pid in re.findall(r"\(pid (\d+)", self.output)]

    def left_behind(self) -> list[object]:
        """Whatever of it still is there."""
        alive = [pid for pid in self.pids() if Path(f"/proc/{pid}").exists()]
        return [*alive, *self.temporary.iterdir()]

    def dispose(self) -> None:
        """As Ctrl-C twice, so that a failed test leaves nothing behind either."""
        if self.running:
            self.terminate()
            self.terminate()
            self.wait(30)


@pytest.fixture
def demo(tmp_path: Path, processes: Callable[[Process], None]) -> Callable[..., Demo]:
    def make(**settings: str) -> Demo:
        made = Demo(tmp_path, **settings)
        processes(made)
        return made

    return make


@pytest.mark.timeout(120)
async def test_the_demo_chats_mends_itself_and_leaves_nothing(demo: Callable[..., Demo]):
    run = demo()
    run.launch()
    await asyncio.to_thread(run.wait_output, f"Open http://127.0.0.1:{run.port}", 60)
    assert len(run.pids()) == 2 + SERVERS
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{run.port}", timeout=20) as client:
        service = Service(client)
        assert "ImCluster chat" in (await client.get("/")).text
        url = await service.server_for("a")
        async with open_socket(url) as at_a:
            await service.post("/ws/send-msg", senderWebsocketId="b", receiveWebsocketId="a", message="hello")
            assert await at_a.recv() == '"hello"'
        # A curious user kills the server that serves `a`.
        number = int(url.split(":")[2].split("/")[0]) - run.base + 1
        found = re.search(rf"imserver im-{number}: .*\(pid (\d+)\)", run.output)
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        async with open_socket(await service.server_for("a", avoid=url.split("?")[0])) as at_a:
            await service.post("/ws/send-msg", senderWebsocketId="b", receiveWebsocketId="a", message="still there")
            # After a crash a plain socket may be given again what came in the last second.
            while await at_a.recv() != '"still there"':
                pass
        await asyncio.to_thread(run.wait_output, f"imserver im-{number} (pid {found[1]}) was ended by SIGKILL", 20)
        await asyncio.to_thread(run.wait_output, f"imserver im-{number} is back", 40)

        async def welcome_again() -> bool:
            servers = (await service.server_for("a")).split("?")[0]
            return servers == url.split("?")[0]

        await eventually(welcome_again, 20, "the restarted server in the topology")
    run.interrupt()
    assert await run.wait_async(40) == 0
    assert run.left_behind() == []
    assert "did not stop within" not in run.output


@pytest.mark.parametrize("step", ["ok ports", "ok valkey", "ok imserver im-1", "ok table"])
def test_an_interruption_during_set_up_leaves_nothing(demo: Callable[..., Demo], step: str):
    run = demo()
    run.launch()
    run.wait_output(step, 60)
    run.interrupt()
    assert run.wait(40) == 0
    assert run.left_behind() == []
    assert "Traceback" not in run.output


def test_a_second_interruption_does_not_wait(demo: Callable[..., Demo]):
    run = demo()
    run.launch()
    run.wait_output("Open http", 60)
    valkey = run.pids()[0]
    os.kill(valkey, signal.SIGSTOP)
    run.interrupt()
    run.wait_output("stopping", 20)
    run.interrupt()
    assert run.wait(20) == 0
    assert run.left_behind() == []


@pytest.mark.parametrize(
    ("variable", "offset", "who", "remedy"),
    [
        ("PORT", 0, "the web chat", "PORT="),
        ("BASE_PORT", 1, "imserver im-2", "BASE_PORT="),
        ("ADMIN_BASE_PORT", 0, "the admin port of imserver im-1", "ADMIN_BASE_PORT="),
    ],
)
def test_a_taken_port_is_named_before_anything_starts(
    demo: Callable[..., Demo], variable: str, offset: int, who: str, remedy: str
):
    run = demo()
    assert run.env is not None
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", int(run.env[variable]) + offset))
        taker.listen()
        run.launch()
        assert run.wait(20) == 1
    (line,) = (line for line in run.output.splitlines() if line.startswith("demo: "))
    assert f"port {int(run.env[variable]) + offset} is taken; {who} wanted it" in line
    assert f"choose another: {remedy}" in line
    assert run.pids() == []
    assert run.left_behind() == []


@pytest.mark.timeout(120)
def test_a_redis_of_ones_own_is_used_and_left_alone(demo: Callable[..., Demo], redis_server: RedisServer):
    run = demo(REDIS_URL=redis_server.url)
    run.launch()
    run.wait_output("Open http", 60)
    assert "valkey:" not in run.output
    assert redis_server.command("DBSIZE") != 0
    run.terminate()
    assert run.wait(40) == 0
    assert run.left_behind() == []
    assert redis_server.running


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SERVERS": "none"}, "SERVERS='none': must be a whole number from 1 to 32"),
        ({"SERVERS": "33"}, "must be a whole number from 1 to 32"),
        ({"PORT": "70000"}, "PORT='70000': must be a whole number from 1 to 65535"),
        ({"REDIS_URL": "redis://:hush@127.0.0.1:1"}, "REDIS_URL=redis://127.0.0.1:1: nothing answers there"),
    ],
)
def test_what_can_not_work_is_said_in_one_line(demo: Callable[..., Demo], settings: dict[str, str], says: str):
    run = demo(**settings)
    run.launch()
    assert run.wait(30) == 1
    (line,) = (line for line in run.output.splitlines() if line.startswith("demo: "))
    assert says in line
    assert "hush" not in run.output
    assert run.left_behind() == []


def test_a_port_wanted_twice_is_noticed(demo: Callable[..., Demo]):
    run = demo()
    assert run.env is not None
    run.env["ADMIN_BASE_PORT"] = run.env["BASE_PORT"]
    run.launch()
    assert run.wait(20) == 1
    wait_until(lambda: "is wanted twice: by imserver im-1" in run.output, 5)
