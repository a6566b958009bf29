# Bad input to the web chat: what each endpoint answers, and that nothing was sent.
# Run in one process against imhelper's in-memory twin, since no server has a part in it.

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from examples.webchat.app import create_app
from examples.webchat.settings import Settings
from imhelper.testing import FakeImHelper
from tests.support.webchat import Service


@pytest.fixture
async def fake() -> AsyncIterator[FakeImHelper]:
    helper = FakeImHelper()
    yield helper
    await helper.close()


@pytest.fixture
async def service(fake: FakeImHelper) -> AsyncIterator[Service]:
    transport = httpx.ASGITransport(create_app(Settings(), fake))
    async with httpx.AsyncClient(transport=transport, base_url="http://webchat.test") as client:
        yield Service(client)


LONG = "x" * 129
SEND = {"senderWebsocketId": "a", "receiveWebsocketId": "b", "message": "hello"}


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        ("/ws/pre-connect", {"websocketId": LONG}, "128"),
        ("/ws/pre-connect", {"websocketId": "line\nbreak"}, "control"),
        ("/ws/pre-connect", {"websocketId": "~webchat"}, "may not begin with ~"),
        ("/ws/pre-connect", {"websocketId": "a", "name": "x" * 5000, "avoid": "http://["}, ""),
        ("/ws/subscr-channel", {"websocketId": "a"}, "channel is missing"),
        ("/ws/subscr-channel", {"channel": "Salon"}, "websocketId is missing"),
        ("/ws/subscr-channel", {"websocketId": "a", "channel": "~lobby"}, "may not begin with ~"),
        ("/ws/subscr-channel", {"websocketId": "a", "channel": "Salon"}, "not online"),
        ("/ws/send-channelmsg", {"websocketId": "a", "channel": LONG, "message": "x"}, "128"),
        ("/ws/send-channelmsg", {"websocketId": "a", "channel": "Salon"}, "message is missing"),
        ("/ws/send-msg", {**SEND, "message": ""}, "message is missing"),
        ("/ws/send-msg", {**SEND, "message": "x" * 70_000}, "65536"),
        ("/ws/send-msg", {**SEND, "receiveWebsocketId": ""}, "receiveWebsocketId is missing"),
        ("/ws/send-msg", {**SEND, "senderWebsocketId": LONG}, "128"),
    ],
)
async def test_imcores_endpoints_answer_bad_input_with_code_1(
    service: Service, fake: FakeImHelper, path: str, fields: dict[str, str], says: str
):
    answer = await service.post(path, fields, code=1 if says else 0)
    assert says in answer.get("msg", "")
    assert fake.sent == []


@pytest.mark.parametrize(
    ("path", "fields", "status", "says"),
    [
        ("/api/enter", {}, 400, "websocketId is missing"),
        ("/api/enter", {"websocketId": "a"}, 409, "not online"),
        ("/api/enter", {"websocketId": "a", "channel": ["~lobby"]}, 400, "may not begin with ~"),
        ("/api/enter", {"websocketId": "a", "channel": [f"room {i}" for i in range(51)]}, 400, "at most 50"),
        ("/api/leave-channel", {"websocketId": "a"}, 400, "channel is missing"),
        ("/api/leave-channel", {"websocketId": "a", "channel": LONG}, 400, "128"),
    ],
)
async def test_the_pages_own_endpoints_answer_bad_input_with_4xx(
    service: Service, path: str, fields: dict[str, str], status: int, says: str
):
    assert says in (await service.post(path, fields, code=1, status=status))["msg"]


async def test_forms_may_be_multipart_and_may_not_be_huge_or_hold_files(service: Service, fake: FakeImHelper):
    await fake.connect("b")
    multipart: dict[str, Any] = {name: (None, value) for name, value in SEND.items()}
    response = await service.client.post("/ws/send-msg", files=multipart)
    assert response.json()["code"] == 0
    assert len(fake.sent) == 1
    with_file = {**multipart, "message": ("a.txt", b"hello")}
    response = await service.client.post("/ws/send-msg", files=with_file)
    assert response.json()["code"] == 1
    await service.post("/ws/send-msg", SEND, code=1, status=413, message="x" * 600_000)
    assert len(fake.sent) == 1


async def test_only_post_is_taken(service: Service):
    assert (await service.client.get("/ws/pre-connect")).status_code == 405
    assert (await service.client.get("/nowhere")).status_code == 404


async def test_ids_with_syntax_of_their_own_are_plain_ids(service: Service, fake: FakeImHelper):
    for odd in ("a:b", "{x}", "*", "'\"", "<b>", "日本"):
        await fake.connect(odd)
        await service.post("/ws/subscr-channel", websocketId=odd, channel=odd)
        assert await service.online(odd) == 1
