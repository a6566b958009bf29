# SIGTERM: clients are sent elsewhere at a bounded rate, nothing is dropped, and the process ends by itself.
# A second SIGTERM cuts it short; the table forgets the server before it has gone.

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from imhelper import ImHelper
from tests.support.cluster import connected, url_on
from tests.support.raw import raw, request
from tests.support.waiting import eventually
from tests.support.ws import open_socket

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


async def test_envelope_clients_move_with_nothing_missing_and_plain_ones_get_1012(redis_server, spawn_imservers):
    old, new = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_DRAIN_RATE=50, IM_GRACE_SECONDS=5)
    async with ImHelper(redis_server.url) as im, AsyncExitStack() as stack:
        envelopes = {
            f"e{n}": await stack.enter_async_context(connected(old, im, f"e{n}", envelope=True)) for n in range(10)
        }
        plains = {f"p{n}": await stack.enter_async_context(connected(old, im, f"p{n}")) for n in range(10)}
        names = [*envelopes, *plains]
        for name in names:
            await im.join_chan(name, "room")
        for socket in envelopes.values():
            await socket.recv_kind("hello")
        sent = 0
        stop = asyncio.Event()

        async def talk() -> None:
            nonlocal sent
            while not stop.is_set():
                await im.send_chan_message("s", "room", sent)
                sent += 1
                await asyncio.sleep(0.01)

        async def envelope_client(name: str) -> list[int | str]:
            """Moves as the browser client does: the new socket first, then the old one closes; ids are told apart."""
            got: dict[str, int | str] = {}
            socket = envelopes[name]
            while (frame := await socket.recv_json())["t"] != "move":
                got[frame["id"]] = frame["data"]
            assert frame["url"].startswith(f"{new.url}?token=")
            async with open_socket(frame["url"], envelope=True, since=frame["pos"]) as moved:
                assert (await moved.recv_kind("hello"))["recovered"] is True
                await socket.raw.close()
                while "end" not in got.values():
                    frame = await moved.recv_json()
                    got[frame["id"]] = frame["data"]
            return list(got.values())

        async def plain_client(name: str) -> list[int | str]:
            got: list[str] = []
            try:
                while True:
                    got.append(str(await plains[name].recv()))
            except ConnectionClosed as end:
                assert end.rcvd is not None and end.rcvd.code == 1012
            url = await im.prev_connect_server(name)
            assert url.startswith(new.url), "a draining server is never given"
            async with open_socket(url) as again:
                while got[-1] != "end":
                    got.append(str(await again.recv()))
            return [int(g) if g != "end" else g for g in got]

        talking = asyncio.create_task(talk())
        await asyncio.sleep(0.2)
        old.terminate()
        clients = [asyncio.create_task(envelope_client(n)) for n in envelopes]
        clients += [asyncio.create_task(plain_client(n)) for n in plains]

        def arrived() -> bool:
            for failed in [c for c in clients if c.done()]:
                failed.result()
            return int(new.metrics()["imserver_connections"]) == 20

        await eventually(arrived, 20)
        stop.set()
        await talking
        await im.send_chan_message("s", "room", "end")
        for got in await asyncio.gather(*clients):
            assert got == [*range(sent), "end"]
        assert await old.wait_async() == 0

        async def forgotten() -> bool:
            return [s.name for s in await im.servers()] == [new.name]

        await eventually(forgotten, 10)
        assert await im.get_online_count() == 20, "nobody was offline meanwhile"


async def test_a_draining_server_refuses_and_says_so(redis_server, spawn_imservers):
    old, new = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_DRAIN_TIMEOUT_SECONDS=60)
    async with ImHelper(redis_server.url) as im, connected(old, im, "stays", envelope=True) as stays:
        await stays.recv_kind("hello")
        token_url = await url_on(old, im, "late")
        old.terminate()
        await stays.recv_kind("move")
        assert old.metrics()["imserver_draining"] == 1 and old.metrics()["imserver_moves_total"] == 1
        assert old.admin_get("/readyz")[0] == 503 and "draining" in old.admin_get("/readyz")[1]
        assert old.admin_get("/healthz")[0] == 200
        async with raw(old.port) as connection:
            await connection.send(request(token_url[token_url.index("/ws") :]))
            answer = await connection.response()
            assert answer.status == 503 and int(answer.fields["retry-after"]) > 0
        async with open_socket(token_url.replace(old.url, new.url)):
            pass

        async def handed_over() -> bool:
            topology = await im.topology()
            return {topology.servers[at].name for at in topology.table} == {new.name}

        await eventually(handed_over, 10)
        # Who does not move is served until the deadline.
        await im.send_message("s", "stays", "still here")
        assert (await stays.recv_json())["data"] == "still here"
        old.terminate()
        assert (await stays.closed())[0] == 1012
        assert await old.wait_async(10) == 0
    assert "Traceback" not in old.output


async def test_who_stays_is_closed_at_the_deadline(redis_server, spawn_imservers):
    old, _ = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, IM_DRAIN_TIMEOUT_SECONDS=1)
    async with ImHelper(redis_server.url) as im, connected(old, im, "stays", envelope=True) as stays:
        old.terminate()
        assert (await stays.closed())[0] == 1012
        assert await old.wait_async(15) == 0


async def test_the_last_server_closes_its_clients_and_ends(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=8)
    async with (
        ImHelper(redis_server.url) as im,
        connected(server, im, "e", envelope=True) as envelope,
        connected(server, im, "p") as plain,
    ):
        server.terminate()
        assert (await envelope.closed())[0] == (await plain.closed())[0] == 1012
        assert await server.wait_async() == 0
        assert "Traceback" not in server.output
        # They are in grace, and come back to the server that is started next with what they missed.
        await im.send_message("s", "p", "meanwhile")
        await asyncio.to_thread(server.start)
        async with connected(server, im, "p") as again:
            await im.send_message("s", "p", "new")
            assert [await again.recv(), await again.recv()] == ["meanwhile", "new"]

        async def nobody() -> bool:
            return not await im.get_online_count()

        await eventually(nobody, 20)


async def test_a_sigterm_at_the_very_start_ends_it(redis_server, spawn_imservers):
    for delay in (0.3, 0.6, 0.9, 1.2):
        [server] = spawn_imservers(1, redis_server.url, ready=False)
        await asyncio.sleep(delay)
        server.terminate()
        status = await server.wait_async()
        assert status in (0, -15), server.output
        assert "Traceback" not in server.output
    assert redis_server.command("HLEN", "{im}:servers") == 0
