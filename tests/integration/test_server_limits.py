# A server's bounds: silent clients, full servers, allowed origins, sockets a client, and the metrics that tell of it.
# Each bound must hurt only the one who meets it.

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest
from websockets.exceptions import InvalidStatus

from imhelper import ImHelper
from imserver.heard import RECEIVE_BYTES, SHARE_BYTES, TICK_SECONDS
from imserver.room import OURS
from tests.support.cluster import connected, token_for, url_on
from tests.support.raw import CLOSE, PING, PONG, TEXT, UPGRADE, frame, raw, raw_socket, request
from tests.support.waiting import eventually
from tests.support.ws import open_socket

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


async def test_silent_clients_are_closed_and_those_that_live_stay(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_PING_SECONDS=1)
    async with ImHelper(redis_server.url) as im:
        async with (
            connected(server, im, "ponger") as ponger,
            raw_socket(await url_on(server, im, "talker"), envelope=True) as talker,
            raw_socket(await url_on(server, im, "silent")) as silent,
            raw_socket(await url_on(server, im, "mute"), envelope=True) as mute,
            raw_socket(await url_on(server, im, "bytes")) as bits,
        ):
            assert b'"ping":1}' in (await talker.frame()).payload

            async def talk() -> None:
                while True:
                    await talker.send(frame(TEXT, b'{"t":"ping"}'))
                    await bits.send(frame(PONG)[:3])
                    await asyncio.sleep(0.15)
                    await bits.send(frame(PONG)[3:])
                    await asyncio.sleep(0.15)

            talking = asyncio.create_task(talk())
            assert (await silent.frame()).opcode == PING
            closed = await asyncio.gather(silent.until_close(), mute.until_close())
            assert [c.code for c in closed] == [4000, 4000]
            # Three more rounds: who gives a sign of life in each is never closed.
            await asyncio.sleep(3)
            assert not talking.done()
            talking.cancel()
            for client in ("ponger", "talker", "bytes"):
                await im.send_message("s", client, "alive")
            assert await ponger.recv() == "alive"
            for connection in (talker, bits):
                while b"alive" not in (found := await connection.frame()).payload:
                    assert found.opcode != CLOSE
        metrics = server.metrics()
        assert metrics['imserver_disconnects_total{code="4000"}'] == 2


async def test_a_full_server_says_so_and_the_token_still_works_elsewhere(redis_server, spawn_imservers):
    [small] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_MAX_CONNECTIONS=5, IM_GRACE_SECONDS=0)
    [large] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=0)
    async with ImHelper(redis_server.url) as im:
        tokens = [await token_for(im, f"c{n}") for n in range(30)]
        connections = [raw(small.port) for _ in tokens]
        opened = [await c.__aenter__() for c in connections]
        try:
            await asyncio.gather(*(c.send(request(f"/ws?token={t}")) for c, t in zip(opened, tokens, strict=True)))
            answers = await asyncio.gather(*(c.response() for c in opened))
            assert sorted(a.status for a in answers) == [101] * 5 + [503] * 25, "all at once, and never one too many"
            for answer in answers:
                if answer.status == 503:
                    assert int(answer.fields["retry-after"]) > 0 and json.loads(answer.body)["error"] == "full"
            for token, answer in zip(tokens, answers, strict=True):
                if answer.status == 503:
                    async with open_socket(f"{large.url}?token={token}"):
                        pass
            metrics = small.metrics()
            assert metrics["imserver_connections"] == metrics["imserver_max_connections"] == 5
            assert metrics['imserver_handshakes_total{result="full"}'] == 25
        finally:
            for connection in connections:
                await connection.__aexit__(None, None, None)
        await eventually(lambda: small.metrics()["imserver_connections"] == 0)
        async with connected(small, im, "again"):
            pass


async def test_origins_that_are_not_allowed_get_403_and_keep_their_token(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_ALLOWED_ORIGINS="https://a.example, http://b.example:8080"
    )
    async with ImHelper(redis_server.url) as im:
        url = await url_on(server, im, "c")
        for origin in (None, "https://evil.example", "null", "https://a.example.evil", "http://a.example"):
            with pytest.raises(InvalidStatus) as caught:
                async with open_socket(url, origin=origin):
                    pass
            assert caught.value.response.status_code == 403
            async with raw(server.port) as connection:
                fields = {"Host": "h"} | ({"Origin": origin} if origin else {})
                await connection.send(request(url[url.index("/ws") :], fields))
                assert (await connection.response()).status == 403, "also told to who asks for no WebSocket"
        for twice in ({"Origin": "https://a.example", "origin": "https://evil.example"},):
            async with raw(server.port) as connection:
                await connection.send(request(url[url.index("/ws") :], UPGRADE | twice))
                assert (await connection.response()).status in (400, 403)
        async with open_socket(url, origin="https://a.example"):
            pass
        async with open_socket(await url_on(server, im, "c"), origin="http://b.example:8080"):
            pass


async def test_with_one_socket_a_client_the_newest_wins(redis_server, spawn_imservers):
    servers = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_MAX_SOCKETS_PER_CLIENT=1)
    async with ImHelper(redis_server.url) as im, connected(servers[0], im, "c") as first:
        async with connected(servers[1], im, "c") as second:
            assert (await first.closed())[0] == 4502
            async with connected(servers[1], im, "c") as third:
                assert (await second.closed())[0] == 4502
                await im.send_message("s", "c", "to the newest")
                assert await third.recv() == "to the newest"
        counts = [s.metrics().get('imserver_disconnects_total{code="4502"}') for s in servers]
        assert counts == [1, 1]


async def test_large_payloads_pass_when_the_cluster_allows_them(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_MAX_PAYLOAD_BYTES=4_000_000, IM_BUFFER_BYTES=65536
    )
    async with ImHelper(redis_server.url) as im:
        for envelope in (True, False):
            async with connected(server, im, "c", envelope=envelope) as socket:
                if envelope:
                    await socket.recv_kind("hello")
                for _ in range(2):
                    await im.send_message("s", "c", "x" * 1_500_000)
                    assert str(await socket.recv()).count("x") >= 1_500_000


async def test_a_client_that_floods_is_read_slowly_and_nobody_waits_for_it(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_PING_SECONDS=2)
    async with (
        ImHelper(redis_server.url) as im,
        connected(server, im, "good", envelope=True) as good,
        raw_socket(await url_on(server, im, "evil"), envelope=True) as evil,
    ):
        ping = frame(TEXT, b'{"t":"ping"}')
        answered, began = 0, monotonic()

        async def ask() -> None:
            while True:
                await evil.send(ping * 1000)

        async def hear() -> None:
            nonlocal answered
            while True:
                answered += b'"pong"' in (await evil.frame(30)).payload

        flood = [asyncio.create_task(ask()), asyncio.create_task(hear())]
        await good.recv_kind("hello")
        for n in range(20):
            await im.send_message("s", "good", n)
            assert (await good.recv_json())["data"] == n
            await asyncio.sleep(0.1)
        assert not any(task.done() for task in flood), "it is not closed for it"
        # Its own kernel holds the rest. The server's clock gives it no more than this, however busy the machine is.
        shares = (monotonic() - began) / TICK_SECONDS + 2
        assert 0 < answered * len(ping) < shares * SHARE_BYTES + 4 * RECEIVE_BYTES
        flood[0].cancel()
        await im.send_message("s", "evil", "still there")
        await eventually(lambda: server.metrics()['imserver_messages_delivered_total{kind="message"}'] == 21)
        flood[1].cancel()


async def test_connections_that_ask_for_nothing_keep_nobody_out(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, files=OURS + 100, IM_MAX_CONNECTIONS=50)
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(raw(server.port))
        for n in range(50):
            await stack.enter_async_context(connected(server, im, f"c{n}"))
        async with raw(server.port) as one_more:
            await one_more.send(request(f"/ws?token={await token_for(im, 'c50')}"))
            assert (await one_more.response()).status == 503
        assert server.admin_get("/healthz")[0] == 200
        assert server.metrics()["imserver_connections"] == 50
        assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < OURS + 100


async def test_a_server_that_may_open_few_files_takes_fewer_and_says_so(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, files=1024)
    assert server.metrics()["imserver_max_connections"] == 720
    assert "room for 720 connections, not for the 18000 of IM_MAX_CONNECTIONS" in server.output
