# The handshake against real servers: tokens, paths, and requests that are none. Each refusal is HTTP with a reason.
# A token that was refused for a reason of the server's is still good elsewhere.

import asyncio
import json

import pytest

from imhelper import ImHelper
from imhelper.core.slots import slot_of
from imhelper.core.tokens import make_token
from tests.support.cluster import connected, new_name, token_for, url_on
from tests.support.raw import PING, PONG, UPGRADE, Response, frame, raw, raw_socket, request
from tests.support.waiting import eventually
from tests.support.ws import open_socket


async def ask(port: int, data: bytes) -> Response:
    """What one request gets; the server ends the connection after a refusal."""
    async with raw(port) as connection:
        await connection.send(data)
        answer = await connection.response()
        assert await connection.ended() == b""
        return answer


def unauthorized(answer: Response) -> bool:
    assert answer.fields["content-type"] == "application/json" and "error" in json.loads(answer.body)
    return answer.status == 401


async def test_a_token_works_once_on_any_server(cluster, im):
    client = new_name()
    url = await im.prev_connect_server(client)
    token = url.partition("?token=")[2]
    assert url.partition("?")[0] in {s.url for s in cluster.servers}
    for server in cluster.servers:
        async with open_socket(await url_on(server, im, client)):
            pass
    async with open_socket(f"{cluster.servers[0].url}?token={token}"):
        for server in cluster.servers:
            assert unauthorized(await ask(server.port, request(f"/ws?token={token}")))


async def test_of_many_who_bring_the_same_token_one_gets_in(cluster, im):
    target = request(f"/ws?token={await token_for(im, new_name())}")

    async def status(port: int) -> int:
        async with raw(port) as connection:
            await connection.send(target)
            answer = await connection.response()
            await asyncio.sleep(0.2)
            return answer.status

    ports = [s.port for s in cluster.servers] * 5
    assert sorted(await asyncio.gather(*map(status, ports))) == [101] + [401] * 14


async def test_a_token_that_is_late_is_refused(cluster):
    async with ImHelper(cluster.redis.url, token_ttl=0.2) as hasty:
        token = await token_for(hasty, new_name())
    await asyncio.sleep(0.3)
    assert unauthorized(await ask(cluster.servers[0].port, request(f"/ws?token={token}")))


async def test_tokens_that_nobody_gave_out_are_refused(cluster, im):
    client = new_name()
    good = await token_for(im, client)
    forged = [
        *(
            "",
            "token=",
            "token=%00",
            f"token={good[:-1]}",
            f"token={good}A",
            f"TOKEN={good}",
            "token=*",
            "token=%F0%9F",
        ),
        *(
            f"token={make_token(slot_of(client, 128))}",
            f"token={good[::-1]}",
            "token=" + "x" * 5000,
            "token=3ff." + "A" * 24,
        ),
        *(f"token=0.{'A' * 24}", "token={im:0}:tok:x", "&" * 100, f"token={good}&" + "a=b&" * 30),
    ]
    for query in forged:
        assert unauthorized(await ask(cluster.servers[0].port, request(f"/ws?{query}"))), query
    assert unauthorized(await ask(cluster.servers[0].port, request("/ws")))
    # None of that has used the good one up.
    async with open_socket(f"{cluster.servers[1].url}?token={good}"):
        assert await im.has_online(client)


async def test_any_prefix_may_stand_before_ws_and_nothing_after_it(cluster, im):
    server, client = cluster.servers[0], new_name()
    for path in ("/ws", "/a/ws", "/name space/..//chat/0/ws".replace(" ", "%20")):
        async with raw(server.port) as connection:
            await connection.send(request(f"{path}?token={await token_for(im, client)}"))
            assert (await connection.response()).status == 101
    token = await token_for(im, client)
    for path in ("/", "/ws/", "/wss", "/index.html", "/ws/x", "/metrics", "/healthz"):
        answer = await ask(server.port, request(f"{path}?token={token}"))
        assert answer.status == 404 and json.loads(answer.body)["error"] == "not found"
    async with open_socket(f"{server.url}?token={token}"):
        pass


async def test_requests_that_are_no_upgrade_get_a_4xx_and_use_no_token_up(cluster, im):
    port, token = cluster.servers[0].port, await token_for(im, new_name())
    target = f"/ws?token={token}"

    def without(name: str, **more: str) -> bytes:
        return request(
            target, {n: v for n, v in UPGRADE.items() if n != name} | {n.replace("_", "-"): v for n, v in more.items()}
        )

    wrong = [
        request(target, {"Host": "h"}),
        without("Upgrade", Upgrade="h2c"),
        without("Connection", Connection="close"),
        without("Sec-WebSocket-Key"),
        *(without("Sec-WebSocket-Key", Sec_WebSocket_Key=bad) for bad in ("x", "dGhlIHNhbXBsZQ==", "!" * 24, "")),
        *(without("Sec-WebSocket-Version", Sec_WebSocket_Version=bad) for bad in ("8", "14", "x", "")),
        *(request(target, method=bad) for bad in ("POST", "HEAD", "get", "")),
        *(request(target, version=bad) for bad in ("HTTP/1.0", "HTTP/2.0", "", "x")),
        request(f"/ws ?token={token}"),
        *(b"\r\n\r\n", b"\n\n\n\n", b"GET\x00 / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello over TLS\r\n",
        *(request(target, UPGRADE | {bad: "x"}) for bad in ("Bad Name", "", "Bäd")),
        request(target, UPGRADE | {"Transfer-Encoding": "chunked"}),
        request(target, UPGRADE | {"Content-Length": "5"}) + b"hello",
    ]
    for data in wrong:
        answer = await ask(port, data)
        assert 400 <= answer.status < 500 or answer.status in (501, 505), (data, answer)
        assert answer.body, "the reason is told"
    async with open_socket(f"{cluster.servers[1].url}?token={token}"):
        pass


async def test_a_bad_token_is_told_also_to_who_asks_for_no_websocket(cluster, im):
    server, client = cluster.servers[0], new_name()
    token = await token_for(im, client)
    async with open_socket(f"{server.url}?token={token}"):
        pass
    fields = {"Host": "h", "Accept": "*/*"}
    for target in ("/ws", "/ws?token=", "/a/ws?token=x", f"/ws?token={token}"):
        assert unauthorized(await ask(server.port, request(target, fields))), target
    good = await token_for(im, client)
    assert (await ask(server.port, request(f"/ws?token={good}", fields))).status == 426
    assert (await ask(server.port, request(f"/?token={good}", fields))).status == 404
    async with open_socket(f"{server.url}?token={good}"):
        pass


@pytest.mark.parametrize("many", [True, False], ids=["many fields", "one field"])
async def test_a_megabyte_of_headers_is_refused_in_words_that_arrive(cluster, im, many):
    token = await token_for(im, new_name())
    head = request(f"/ws?token={token}")[:-2]
    junk = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(1000)) if many else b"X: " + b"y" * 1_000_000
    async with raw(cluster.servers[0].port) as connection:
        # All of it is sent before anything is read, as a plain client does.
        connection.writer.write(head + junk)
        answer = await connection.response()
        assert answer.status in (400, 431), answer
    async with raw(cluster.servers[0].port) as connection:
        await connection.send(request("/ws?token=" + "x" * 1_000_000))
        assert (await connection.response()).status in (400, 401, 414, 431)
    async with open_socket(f"{cluster.servers[1].url}?token={token}"):
        pass


async def test_a_request_may_come_in_any_pieces_with_frames_on_its_heels(cluster, im):
    data = request(f"/ws?token={await token_for(im, new_name())}") + frame(PING, b"early") + frame(PING, b"x" * 100)
    async with raw(cluster.servers[0].port) as connection:
        for at in range(0, len(data), 7):
            connection.writer.write(data[at : at + 7])
            await asyncio.sleep(0)
        assert (await connection.response()).status == 101
        assert await connection.frame() == (PONG, b"early")
        assert await connection.frame() == (PONG, b"x" * 100)
    data = request(f"/ws?token={await token_for(im, new_name())}") + frame(PING, b"early")
    async with raw(cluster.servers[0].port) as connection:
        await connection.send(data)
        assert (await connection.response()).status == 101
        assert await connection.frame() == (PONG, b"early")


@pytest.mark.parametrize("cluster", ["valkey"], indirect=True)
async def test_who_sends_no_whole_request_is_cut_off(cluster, im):
    port = cluster.servers[0].port
    timeouts = 'imserver_handshakes_total{result="timeout"}'
    before = cluster.servers[0].metrics()[timeouts]

    async def silence() -> bytes:
        async with raw(port) as connection:
            return await connection.ended(20)

    async def half() -> bytes:
        async with raw(port) as connection:
            await connection.send(request("/ws?token=x")[:60])
            return await connection.ended(20)

    async def slowloris() -> bytes:
        async with raw(port) as connection:
            await connection.send(request("/ws?token=x")[:-2])
            ended = asyncio.create_task(connection.ended(20))
            number = 0
            while not ended.done():
                number += 1
                connection.writer.write(b"X-%d: y\r\n" % number)
                await asyncio.sleep(0.5)
            return await ended

    async def refused_but_stays() -> bytes:
        async with raw(port) as connection:
            await connection.send(request("/nothing"))
            await connection.response()
            connection.writer.write(b"x" * 1000)
            return await connection.ended(20)

    async with connected(cluster.servers[0], im, new_name()) as honest:
        ends = await asyncio.gather(silence(), half(), slowloris(), refused_but_stays())
        assert list(ends) == [b""] * 4
        assert cluster.servers[0].metrics()[timeouts] == before + 3
        await asyncio.wait_for(await honest.raw.ping(), 5)


async def test_presence_stands_before_the_101(cluster, im):
    for server in cluster.servers:
        client, chan = new_name(), new_name("room")
        assert not await im.has_online(client) and not await im.join_chan(client, chan)
        async with raw_socket(await url_on(server, im, client)) as connection:
            assert await im.has_online(client)
            assert await im.join_chan(client, chan)
            await im.send_chan_message(client, chan, "welcome")
            assert await connection.frame() == (1, b"welcome")


async def test_a_handshake_that_its_client_gave_up_leaves_nobody_online(cluster, im):
    clients = [new_name() for _ in range(20)]
    for number, client in enumerate(clients):
        async with raw(cluster.servers[number % 3].port) as connection:
            await connection.send(request(f"/ws?token={await token_for(im, client)}"))
            connection.reset()

    async def nobody() -> bool:
        return not any((await im.has_online_many(clients)).values())

    await eventually(nobody, 15, "offline after grace")
