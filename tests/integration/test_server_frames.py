# What clients send over an open WebSocket, legal and not, against real servers (RFC 6455, contract part 3).
# Whatever one client does, the process goes on: each test ends with a look at an honest socket.

import asyncio
import json
import struct

import pytest

from tests.support.cluster import connected, new_name, url_on
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, frame, raw_socket
from tests.support.ws import open_socket


@pytest.fixture
async def honest(cluster, im):
    """A socket that was there before, and must be well afterwards."""
    client = new_name("honest")
    async with connected(cluster.servers[0], im, client, envelope=True) as socket:
        await socket.recv_kind("hello")
        yield
        await im.send_message("service", client, "well?")
        assert (await socket.recv_json())["data"] == "well?"


async def closes(connection: Raw, code: int) -> None:
    """The server closes with this code and then ends the connection; so the client was told."""
    assert (await connection.until_close()).code == code
    await connection.send(frame(CLOSE, struct.pack("!H", code)))
    await connection.ended()


BROKEN = {
    "unmasked": frame(TEXT, b"hi", masked=False),
    "unmasked ping": frame(PING, b"", masked=False),
    **{f"reserved bit {bit}": frame(TEXT, b"hi", rsv=bit) for bit in (1, 2, 4)},
    **{f"opcode {opcode}": frame(opcode, b"hi") for opcode in (3, 7, 11, 15)},
    "ping over 125": frame(PING, b"x" * 126),
    "close over 125": frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124),
    "fragmented ping": frame(PING, b"x", fin=False),
    "continuation of nothing": frame(0, b"x"),
    "text inside a text": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "close of one byte": frame(CLOSE, b"\x03"),
    **{f"close code {c}": frame(CLOSE, struct.pack("!H", c)) for c in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)},
    "length with its highest bit": bytes([0x81, 0xFF]) + b"\xff" * 8 + b"mask",
}


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "plain"])
async def test_what_breaks_the_protocol_is_closed_with_1002(cluster, im, honest, envelope):
    for what, data in BROKEN.items():
        async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=envelope) as connection:
            await connection.send(data)
            code = (await connection.until_close()).code
            assert code == 1002 or (what.startswith("length") and code == 1009), what
            await connection.ended()


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "plain"])
async def test_text_that_is_not_utf8_is_closed_with_1007(cluster, im, honest, envelope):
    for data in (
        frame(TEXT, b"\xff"),
        frame(TEXT, b"a" * 200 + b"\xc3\x28"),
        frame(TEXT, b"\xe2\x82", fin=False) + frame(0, b"x"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
    ):
        async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=envelope) as connection:
            await connection.send(data)
            await closes(connection, 1007)


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "plain"])
async def test_what_is_over_4_kib_is_closed_with_1009_and_the_client_hears_it(cluster, im, honest, envelope):
    for data in (
        frame(TEXT, b"x" * 5000),
        frame(BINARY, b"x" * 4097),
        frame(TEXT, b"x" * 4096, fin=False) + frame(0, b"x"),
        frame(TEXT, b"x" * 2_000_000),
    ):
        async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=envelope) as connection:
            connection.writer.write(data)
            assert (await connection.until_close()).code == 1009


async def test_plain_text_is_ignored_whatever_it_says(cluster, im, honest):
    client = new_name()
    async with raw_socket(await url_on(cluster.servers[0], im, client)) as connection:
        for payload in (b"", b"hello", b'{"t":"ack"}', "é👍".encode() * 500, b"x" * 4096, b"\x00"):
            await connection.send(frame(TEXT, payload))
        await connection.send(frame(BINARY, b"\xff\x00") + frame(BINARY, b"\xff", fin=False) + frame(0, b"\xfe"))
        await connection.send(frame(PONG, b"nobody asked") + frame(PONG))
        await im.send_message("service", client, "still there")
        assert await connection.frame() == (TEXT, b"still there")


async def test_a_text_may_come_in_any_pieces_with_pings_between(cluster, im, honest):
    ping = b'{"t" : "ping" , "x" : "' + b"y" * 130 + '€"}'.encode()
    cut = len(ping) - 4
    data = (
        frame(TEXT, ping[:5], fin=False)
        + frame(PING, b"1")
        + frame(0, b"", fin=False)
        + frame(0, ping[5:cut], fin=False)
    )
    data += frame(PING, b"2") + frame(0, ping[cut:]) + frame(PING, b"3")
    for step in (1, 3, len(data)):
        async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=True) as connection:
            hello = json.loads((await connection.frame()).payload)
            for at in range(0, len(data), step):
                connection.writer.write(data[at : at + step])
                if at % 50 == 0:
                    await asyncio.sleep(0.001)
            answers = [await connection.frame() for _ in range(4)]
            assert [a.payload for a in answers if a.opcode == PONG] == [b"1", b"2", b"3"]
            [pong] = [json.loads(a.payload) for a in answers if a.opcode == TEXT]
            assert pong == {"t": "pong", "pos": hello["pos"]}


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"hello", b"5", b"null", b"[]", b'"ping"', b"{}", b'{"t":5}', b'{"t":"msg"}', b'{"t":["ping"]}', b"{"),
        *(b'{"t":"ack"}', b'{"t":"ack","pos":5}', b'{"t":"ack","pos":null}', b'{"t":"ack","pos":"x"}', b'{"t":"PING"}'),
        *(
            b'{"t":"ack","pos":"\\ud800"}',
            b"[" * 2000,
            b'{"t":' * 800,
            b'{"t":"ack","pos":"1.2-3-4"}',
            b"\xef\xbb\xbf{}",
        ),
    ],
    ids=lambda p: p[:30].decode("utf-8", "replace"),
)
async def test_what_the_envelope_does_not_know_is_closed_with_4501(cluster, im, payload):
    async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=True) as connection:
        await connection.send(frame(TEXT, payload))
        await closes(connection, 4501)


async def test_binary_is_no_part_of_the_envelope(cluster, im, honest):
    for data in (frame(BINARY, b""), frame(BINARY, b"x" * 200), frame(BINARY, b"x", fin=False)):
        async with raw_socket(await url_on(cluster.servers[0], im, new_name()), envelope=True) as connection:
            await connection.send(data)
            await closes(connection, 4501)


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "plain"])
async def test_a_close_is_answered_with_the_same_and_the_end_of_the_connection(cluster, im, honest, envelope):
    for payload in (
        b"",
        struct.pack("!H", 1000),
        struct.pack("!H", 1001) + b"bye",
        struct.pack("!H", 4321) + "é".encode(),
    ):
        client = new_name()
        async with raw_socket(await url_on(cluster.servers[0], im, client), envelope=envelope) as connection:
            await connection.send(frame(CLOSE, payload) + frame(TEXT, b"too late"))
            assert (await connection.until_close()).payload == payload
            assert await connection.ended() == b""


async def test_close_codes_of_clients_make_no_metric_of_their_own(cluster, im):
    for code in (3000, 4777, 4999):
        async with raw_socket(await url_on(cluster.servers[2], im, new_name())) as connection:
            await connection.send(frame(CLOSE, struct.pack("!H", code)))
            await connection.ended()
    names = [n for n in cluster.servers[2].metrics() if n.startswith("imserver_disconnects_total")]
    assert 'imserver_disconnects_total{code="other"}' in names
    assert not {n for n in names if "3000" in n or "4777" in n or "4999" in n}


async def test_an_unknown_subprotocol_is_plain_mode(cluster, im):
    client = new_name()
    async with open_socket(await url_on(cluster.servers[0], im, client), subprotocols=["other.v1"]) as socket:
        assert socket.raw.subprotocol is None
        await im.send_message("service", client, "plain")
        assert await socket.recv() == "plain"
    async with open_socket(
        await url_on(cluster.servers[0], im, client), envelope=True, subprotocols=["other"]
    ) as socket:
        assert socket.raw.subprotocol == "imcluster.v1.json"
        assert (await socket.recv_json())["t"] == "hello"


async def test_a_flood_of_pings_from_one_that_does_not_read_is_bounded(cluster, im, honest):
    async with raw_socket(await url_on(cluster.servers[0], im, new_name()), receive_buffer=4096) as connection:
        flood = frame(PING, b"x" * 125) * 500
        for _ in range(400):
            connection.writer.write(flood)
            try:
                await asyncio.wait_for(connection.writer.drain(), 0.5)
            except (TimeoutError, ConnectionError):
                break
        assert cluster.servers[0].metrics()["imserver_write_buffer_bytes"] < 2_000_000
