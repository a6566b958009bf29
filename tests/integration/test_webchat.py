# The web chat against real imservers: ImCore's endpoints as its old front ends call them, and the live view.
# What front ends see is asserted on the sockets themselves, not on what the service believes.

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import SpawnImservers
from tests.support.imserver import ImServer
from tests.support.process import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually
from tests.support.webchat import ROOT, Service, WebChat, calling, in_topology
from tests.support.ws import Socket, open_socket


@pytest.fixture
def redis_flavour() -> str:
    """The service never speaks to Redis itself, so one flavour says it all."""
    return "valkey"


@pytest.fixture
def webchat(redis_server: RedisServer, tmp_path: Path, processes: Callable[[Process], None]) -> WebChat:
    server = WebChat(redis_server.url, tmp_path)
    processes(server)
    return server


class Start(Protocol):
    """Starts so many imservers and then the web chat; answers the servers and the web chat's endpoints."""

    async def __call__(
        self, number: int, lease_seconds: float = 5, grace_seconds: float = 10
    ) -> tuple[list[ImServer], Service]: ...


@pytest.fixture
async def start(redis_server: RedisServer, spawn_imservers: SpawnImservers, webchat: WebChat) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(
            number: int, lease_seconds: float = 5, grace_seconds: float = 10
        ) -> tuple[list[ImServer], Service]:
            servers = await asyncio.to_thread(
                lambda: spawn_imservers(
                    number, redis_server.url, IM_LEASE_SECONDS=lease_seconds, IM_GRACE_SECONDS=grace_seconds
                )
            )
            if number:
                await in_topology(redis_server.url, number)
            await asyncio.to_thread(webchat.start)
            return servers, await stack.enter_async_context(calling(webchat))

        yield start


async def recv_imcore(socket: Socket) -> str:
    """The next message as ImCore's demo page reads it: parsed once by its socket, and once more by its handler."""
    inner = json.loads(await socket.recv())
    assert isinstance(inner, str)
    return inner


async def recv_service(socket: Socket, kind: str, **wanted: object) -> dict[str, Any]:
    """The next push of the service itself of this kind, with these fields; others are passed over."""
    async with asyncio.timeout(20):
        while True:
            data = (await socket.recv_kind("msg")).get("data")
            if isinstance(data, dict) and data["type"] == kind and wanted.items() <= data.items():
                return data


async def test_an_old_front_end_chats_in_a_room(start: Start):
    _, service = await start(2)
    first = await service.post("/ws/pre-connect")
    a, b = first["websocketId"], str(uuid.uuid4())
    assert uuid.UUID(a)
    assert first["server"].startswith("ws://127.0.0.1:")
    async with open_socket(first["server"]) as at_a, open_socket(await service.server_for(b)) as at_b:
        # ImCore's page spells the field this way here and `websocketId` elsewhere; ASP.NET takes both.
        await service.post("/ws/subscr-channel", websocketid=a, channel="Salon")
        await service.post("/ws/subscr-channel", websocketid=b, channel="Salon")
        assert await service.online("Salon") == 2
        message = json.dumps({"type": "chanmsg", "sender": a, "msg": {"type": "text", "content": "你好 <b>"}})
        await service.post("/ws/send-channelmsg", websocketId=a, channel="Salon", message=message)
        assert [await recv_imcore(at_a), await recv_imcore(at_b)] == [message, message]


async def test_a_receipt_says_what_became_of_a_message(start: Start):
    _, service = await start(1, grace_seconds=1)
    a, b = str(uuid.uuid4()), str(uuid.uuid4())
    async with (
        open_socket(await service.server_for(a)) as at_a,
        open_socket(await service.server_for(b)) as at_b,
    ):
        to_b = {"senderWebsocketId": a, "receiveWebsocketId": b}
        await service.post("/ws/send-msg", to_b, message="hello", isReceipt="true")
        assert await recv_imcore(at_b) == "hello"
        receipt = json.loads(await at_a.recv())
        assert (json.loads(receipt["content"]), receipt["receipt"]) == ("hello", "delivered")

        await service.post("/ws/send-msg", to_b, message="no receipt, please")
        to_nobody = {"senderWebsocketId": a, "receiveWebsocketId": str(uuid.uuid4())}
        await service.post("/ws/send-msg", to_nobody, message="anyone?", isReceipt="True")
        receipt = json.loads(await at_a.recv())
        assert (json.loads(receipt["content"]), receipt["receipt"]) == ("anyone?", "user not online")


async def test_a_message_sent_again_with_its_key_arrives_once(start: Start):
    _, service = await start(1)
    async with open_socket(await service.server_for("b"), envelope=True) as at_b:
        send = {"senderWebsocketId": "a", "receiveWebsocketId": "b"}
        first = await service.post("/ws/send-msg", send, message="once", key="k1")
        again = await service.post("/ws/send-msg", send, message="once", key="k1")
        after = await service.post("/ws/send-msg", send, message="then", key="k2")
        assert first["id"] == again["id"] != after["id"]
        assert [(await at_b.recv_kind("msg"))["id"] for _ in range(2)] == [first["id"], after["id"]]


async def test_a_client_is_led_around_the_server_that_failed(start: Start):
    _, service = await start(2)
    first = (await service.server_for("wanderer")).split("?")[0]
    second = (await service.server_for("wanderer", avoid=first)).split("?")[0]
    assert first != second


async def test_a_page_is_told_who_comes_and_goes_without_asking(start: Start):
    _, service = await start(2, grace_seconds=0)
    async with open_socket(await service.server_for("me", name=" Ada\t Lovelace "), envelope=True) as page:
        await page.recv_kind("hello")
        state = await service.post("/api/enter", websocketId="me", name="Ada Lovelace", channel=["General", "Tea"])
        assert sorted(state["rooms"]) == ["General", "Tea", "~lobby"]
        assert state["live"]["people"] == {"online": 1, "list": [{"id": "me", "name": "Ada Lovelace"}]}
        assert state["live"]["rooms"]["list"] == [{"chan": "General", "online": 1}, {"chan": "Tea", "online": 1}]
        assert {server["name"] for server in state["live"]["servers"]} == {"s0", "s1"}

        async with open_socket(await service.server_for("guest", name="Grace")):
            both = [{"id": "me", "name": "Ada Lovelace"}, {"id": "guest", "name": "Grace"}]
            await recv_service(page, "live", people={"online": 2, "list": both})
            await service.post("/ws/subscr-channel", websocketId="guest", channel="Tea")
            tea = [{"chan": "Tea", "online": 2}, {"chan": "General", "online": 1}]
            await recv_service(page, "live", rooms={"count": 2, "list": tea})
        alone = {"online": 1, "list": [{"id": "me", "name": "Ada Lovelace"}]}
        await recv_service(page, "live", people=alone)

        assert (await service.post("/api/leave-channel", websocketId="me", channel="Tea"))["left"] == 1
        assert (await service.post("/api/leave-channel", websocketId="me", channel="Tea"))["left"] == 0
        # The lobby that carries these pushes is the service's own: front ends are not shown it.
        assert [item["chan"] for item in (await service.post("/ws/get-channels"))["channels"]] == ["General"]


async def test_the_live_view_shows_a_killed_server_and_its_return(start: Start):
    servers, service = await start(2, lease_seconds=2)
    url = await service.server_for("me")
    survivor, victim = sorted(servers, key=lambda server: not url.startswith(server.url))

    async def told(page: Socket, active: set[str]) -> None:
        """Wait for a push in which just these answer; a dead one may stay in sight until the table is without it."""
        async with asyncio.timeout(20):
            while True:
                live = (await recv_service(page, "live")).get("servers", [])
                if {server["name"] for server in live if server["state"] == "active"} == active:
                    return

    async with open_socket(url, envelope=True) as page:
        await service.post("/api/enter", websocketId="me")
        victim.kill()
        await told(page, {survivor.name})
        await asyncio.to_thread(victim.start)
        await told(page, {survivor.name, victim.name})


async def test_without_a_server_the_answer_says_so(start: Start):
    _, service = await start(0)
    answer = await service.post("/ws/pre-connect", code=1, status=503)
    assert "No push server is running" in answer["msg"]


async def test_without_redis_the_answer_says_so(start: Start, webchat: WebChat, redis_server: RedisServer):
    _, service = await start(1)
    redis_server.kill()
    send = {"senderWebsocketId": "a", "receiveWebsocketId": "b", "message": "x", "key": "k"}
    answer = await service.post("/ws/send-msg", send, code=1, status=503)
    assert "Redis can't be reached" in answer["msg"]
    assert "127.0.0.1" not in json.dumps(answer)
    redis_server.start()

    async def works_again() -> bool:
        response = await service.client.post("/ws/send-msg", data=send)
        return bool(response.json()["code"] == 0)

    await eventually(works_again, 20, "a send after Redis is back")
    assert webchat.running


async def test_the_page_may_run_no_script_but_its_own(start: Start):
    _, service = await start(0)
    page = await service.client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in ("/static/js/main.js", "/client/index.js"):
        script = await service.client.get(path)
        assert script.status_code == 200
        assert script.headers["content-type"].startswith("text/javascript")
    assert (await service.client.get("/static/%2e%2e/app.py")).status_code == 404


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WEBCHAT_PORT", "http", "1 to 65535"),
        ("WEBCHAT_FILE_MAX_BYTES", "-5", "1 to"),
        ("WEBCHAT_CLIENT_JS", "/nonexistent", "index.js"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(name: str, value: str, allowed: str):
    run = subprocess.run(
        [sys.executable, "-m", "examples.webchat"],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert name in run.stderr
    assert value in run.stderr
    assert allowed in run.stderr
