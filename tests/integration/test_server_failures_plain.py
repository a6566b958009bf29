# A plain client comes back before its last server has told Redis of the end of its socket.
# Redis, restarting just then, makes that gap long; nothing that was accepted in it may be missing.

import asyncio

import pytest

from imhelper import ImHelper
from imhelper.core import keys
from imhelper.core.scripts import load
from imhelper.core.slots import slot_of
from tests.support.boot import Boot
from tests.support.cluster import connected, url_on
from tests.support.waiting import eventually
from tests.support.ws import open_socket


@pytest.fixture
async def im(redis_server):
    async with ImHelper(redis_server.url) as helper:
        yield helper


async def answer_one(boot: Boot, text: bytes) -> None:
    """Play a server that is asked where a socket of it ended."""

    def question() -> bytes | None:
        found = boot.link.command(0, "XRANGE", keys.wake(keys.group_tag("im", 0), boot.boot), "-", "+")
        return next((value for _, (kind, value) in found if kind == b"q"), None)

    asker, number, slot, _ = (await eventually(lambda: asyncio.to_thread(question))).split(b" ")
    assert int(slot) == slot_of("al", 128)
    await asyncio.to_thread(boot.link.eval, load("wake"), 0, asker, "a", b"not to be read, and no reason to end")
    answer = b"%s %s %s" % (boot.boot.encode(), number, text)
    await asyncio.to_thread(boot.link.eval, load("wake"), 0, asker, "a", answer)


async def test_a_server_that_has_not_told_of_the_end_is_asked(redis_server, spawn_imservers, im):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=60)
    other = await asyncio.to_thread(Boot, redis_server.url, "im", "other")
    await asyncio.to_thread(other.connect, await im.prev_connect_server("al"))
    await im.send_message("x", "al", "first")
    last = await asyncio.to_thread(redis_server.command, "HGET", "{im:0}:last", slot_of("al", 128))
    assert isinstance(last, bytes)
    # The socket ended here; of what comes now the client has seen nothing.
    await im.send_message("x", "al", "second")
    answering = asyncio.create_task(answer_one(other, last))
    async with connected(server, im, "al") as socket:
        assert await socket.recv() in ("first", "second")
        await im.send_message("x", "al", "third")
        while await socket.recv() != "third":
            continue
    await answering


async def test_a_handshake_that_came_to_nothing_keeps_the_place(redis_server, spawn_imservers, im):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_LEASE_SECONDS=60)
    other = await asyncio.to_thread(Boot, redis_server.url, "im", "other")

    def close(number: int, pos: bytes) -> object:
        return other.link.eval(load("close"), 0, other.boot, 30_000, 10_000, 16_777_216, 60_000, number, pos)

    await asyncio.to_thread(other.connect, await im.prev_connect_server("al"))
    assert await asyncio.to_thread(close, 1, b"0-0") == 1
    await im.send_message("x", "al", "missed")
    # Recorded, but Redis's answer came too late, and the client was sent away.
    assert await asyncio.to_thread(other.connect, await im.prev_connect_server("al")) == "al"
    assert await asyncio.to_thread(close, 2, b"") == 1
    async with connected(server, im, "al") as socket:
        assert await socket.recv() == "missed"


async def test_coming_back_to_the_same_server_while_redis_restarts(redis_server, spawn_imservers, im):
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    for turn in range(3):
        first, second = await url_on(server, im, "al"), await url_on(server, im, "al")
        async with open_socket(first) as socket:
            await im.send_message("x", "al", f"{turn} before")
            while await socket.recv() != f"{turn} before":
                continue
            await asyncio.to_thread(redis_server.terminate)
            await socket.raw.close()
        await redis_server.wait_async()
        await asyncio.to_thread(redis_server.start)
        await im.send_message("x", "al", f"{turn} between")
        async with open_socket(second, timeout=20) as socket:
            await im.send_message("x", "al", f"{turn} after")
            got: list[str | bytes] = []
            while not got or got[-1] != f"{turn} after":
                got.append(await socket.recv())
            assert f"{turn} between" in got
