# Files from one user to another through the web chat: progress at both ends, links, bounds, and what breaks off.
# The store's bounds in time are tested on a clock of their own; the rest on real sockets and a real service.

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from examples.webchat.errors import BadInput
from examples.webchat.filestore import FileStore, clean_file_name
from tests.conftest import SpawnImservers
from tests.support.process import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from tests.support.webchat import Service, WebChat, calling, in_topology
from tests.support.ws import Socket, open_socket

MAX_BYTES = 4_000_000


@pytest.fixture
def redis_flavour() -> str:
    """The service never speaks to Redis itself, so one flavour says it all."""
    return "valkey"


@pytest.fixture
async def webchat(
    redis_server: RedisServer, spawn_imservers: SpawnImservers, tmp_path: Path, processes: Callable[[Process], None]
) -> WebChat:
    spawn_imservers(2, redis_server.url)
    await in_topology(redis_server.url, 2)
    limits = {"WEBCHAT_FILE_MAX_BYTES": MAX_BYTES, "WEBCHAT_FILES_TOTAL_BYTES": MAX_BYTES + 100}
    server = WebChat(redis_server.url, tmp_path, **limits)
    processes(server)
    server.start()
    return server


@pytest.fixture
async def service(webchat: WebChat) -> AsyncIterator[Service]:
    async with calling(webchat) as service:
        yield service


@pytest.fixture
async def ends(service: Service) -> AsyncIterator[tuple[Socket, Socket]]:
    """The sockets of `ann`, who sends, and `bob`, who receives."""
    async with (
        open_socket(await service.server_for("ann"), envelope=True) as ann,
        open_socket(await service.server_for("bob"), envelope=True) as bob,
    ):
        await ann.recv_kind("hello")
        await bob.recv_kind("hello")
        yield ann, bob


def stored(webchat: WebChat) -> list[Path]:
    return [path for path in webchat.files.rglob("*") if path.is_file()]


async def until_end(socket: Socket) -> list[dict[str, Any]]:
    """The notices of one transfer up to its last; each is acked, so that receipts are delivery and not hope."""
    notices: list[dict[str, Any]] = []
    while not notices or notices[-1]["stage"] == "progress":
        envelope = await socket.recv_kind("msg", 20)
        await socket.ack(envelope["pos"])
        if isinstance(envelope["data"], dict):
            notices.append({**envelope["data"], "message": envelope["id"], "sender": envelope["from"]})
    return notices


async def test_both_ends_see_the_progress_and_the_receiver_gets_the_file(
    webchat: WebChat, service: Service, ends: tuple[Socket, Socket]
):
    ann, bob = ends
    content = bytes(range(256)) * 12_000
    query = {"sender": "ann", "receiver": "bob", "name": 'my "best" plan\u00e9.html', "senderName": "Ann", "key": "k1"}
    upload = await service.client.post("/api/files", params=query, content=content)
    assert upload.json()["code"] == 0

    seen = await until_end(bob)
    steps = [notice["received"] for notice in seen]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, len(content))
    assert 10 <= len(steps) <= 22
    assert {(notice["from"], notice["sender"], notice["fromName"]) for notice in seen} == {("ann", "ann", "Ann")}

    mirrored = await until_end(ann)
    assert [notice["received"] for notice in mirrored] == steps
    assert {notice["key"] for notice in mirrored} == {"k1"}
    assert "url" not in mirrored[-1]
    # Each step that bob got came with a receipt to ann, the last one for the link itself.
    due = {notice["message"] for notice in seen}
    assert {notice["id"] for notice in mirrored} == due
    assert upload.json()["id"] == seen[-1]["message"]

    download = await service.client.get(seen[-1]["url"])
    assert download.content == content
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["content-disposition"].startswith("attachment; filename*=utf-8''my%20%22best%22")
    assert download.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in download.headers["content-security-policy"]


async def test_the_sender_gets_a_receipt_for_each_step(service: Service, ends: tuple[Socket, Socket]):
    ann, bob = ends
    query = {"sender": "ann", "receiver": "bob", "name": "a.txt"}
    answer, seen = await asyncio.gather(
        service.client.post("/api/files", params=query, content=b"x" * 100_000), until_end(bob)
    )
    assert answer.json()["code"] == 0
    awaited = {notice["message"] for notice in seen}
    while awaited:
        receipt = await ann.recv_kind("receipt")
        assert (receipt["to"], receipt["status"]) == ("bob", "delivered")
        awaited.remove(receipt["id"])


async def test_what_can_not_be_sent_is_refused_before_it_is_read(service: Service, ends: tuple[Socket, Socket]):
    async def refused(content: bytes, status: int, **query: str) -> str:
        params = {"sender": "ann", "receiver": "bob", "name": "a.txt", **query}
        response = await service.client.post("/api/files", params=params, content=content)
        assert (response.status_code, response.json()["code"]) == (status, 1)
        message: str = response.json()["msg"]
        return message

    assert str(MAX_BYTES) in await refused(b"x" * (MAX_BYTES + 1), 413)
    assert "nobody is not online" in await refused(b"x", 409, receiver="nobody")
    assert "someone else" in await refused(b"x", 400, receiver="ann")
    assert "name is missing" in await refused(b"x", 400, name="")
    assert "may not begin with ~" in await refused(b"x", 400, sender="~webchat")

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"

    params = {"sender": "ann", "receiver": "bob", "name": "a.txt"}
    response = await service.client.post("/api/files", params=params, content=endless())
    assert response.status_code == 411
    missing = await service.client.get("/files/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert missing.status_code == 404


async def test_an_upload_that_breaks_off_is_told_and_leaves_nothing(
    webchat: WebChat, service: Service, ends: tuple[Socket, Socket]
):
    ann, bob = ends
    _, writer = await asyncio.open_connection("127.0.0.1", webchat.port)
    head = (
        f"POST /api/files?sender=ann&receiver=bob&name=a.bin HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BYTES}\r\n\r\n"
    )
    writer.write(head.encode() + b"x" * (MAX_BYTES // 2))
    await writer.drain()
    while (await bob.recv_kind("msg"))["data"]["received"] < MAX_BYTES // 2:
        pass
    # While it goes, its room is taken: nothing else of that size is accepted.
    params = {"sender": "ann", "receiver": "bob", "name": "b.bin"}
    full = await service.client.post("/api/files", params=params, content=b"x" * 1000)
    assert full.status_code == 507
    writer.transport.abort()
    for end in (ann, bob):
        last = (await until_end(end))[-1]
        assert (last["stage"], last["reason"]) == ("failed", "The upload broke off.")
    wait_until(lambda: not stored(webchat), 10, "the broken upload to be removed")
    again = await service.client.post("/api/files", params=params, content=b"x" * 1000)
    assert again.json()["code"] == 0


async def test_a_stopped_web_chat_leaves_no_files(webchat: WebChat, service: Service, ends: tuple[Socket, Socket]):
    params = {"sender": "ann", "receiver": "bob", "name": "a.txt"}
    assert (await service.client.post("/api/files", params=params, content=b"abc")).status_code == 200
    assert len(stored(webchat)) == 1
    await webchat.stop_async()
    assert list(webchat.files.iterdir()) == []


def test_a_file_can_be_had_for_its_time_and_frees_its_room_then(tmp_path: Path):
    now = 0.0
    store = FileStore(tmp_path, max_bytes=60, total_bytes=100, seconds=10, clock=lambda: now)

    def put(size: int) -> str:
        transfer = store.reserve("a.txt", size)
        transfer.write(b"x" * size)
        transfer.close()
        return transfer.token

    first = put(60)
    with pytest.raises(BadInput, match="no room") as refusal:
        put(50)
    assert refusal.value.status == 507
    now = 9.9
    assert store.find(first) is not None
    now = 10.0
    assert store.find(first) is None
    assert list(tmp_path.iterdir()) == []
    assert store.find(put(50)) is not None


def test_more_bytes_than_announced_are_not_stored(tmp_path: Path):
    store = FileStore(tmp_path, max_bytes=60, total_bytes=100, seconds=10)
    transfer = store.reserve("a.txt", 3)
    with pytest.raises(BadInput, match="larger than"):
        transfer.write(b"four")
    store.remove(transfer)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_file(tmp_path: Path):
    store = FileStore(tmp_path, max_bytes=60, total_bytes=100, seconds=10)
    transfer = store.reserve("empty", 0)
    transfer.close()
    found = store.find(transfer.token)
    assert found is not None
    assert found.path.read_bytes() == b""


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("plan.txt", "plan.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\plan.txt", "plan.txt"),
        ("a\r\nb\x00.txt", "ab.txt"),
        ("..", "file"),
        ("", "file"),
        ("計画.txt", "計画.txt"),
        ("x" * 300 + ".jpeg", "x" * 115 + ".jpeg"),
    ],
)
def test_file_names_are_only_names(given: str, kept: str):
    assert clean_file_name(given) == kept
