# The benchmarks' peers: that the load generator speaks their protocols and counts messages, not frames, and that each
# peer that is there delivers. Nothing is built for these tests: a peer that is not there is skipped with its reason.

import asyncio
import json
import re
from contextlib import closing

import pytest
from websockets.asyncio.server import serve

from bench.build import compiler
from bench.errors import BenchError
from bench.natives import Loadgen
from bench.options import Options
from bench.peers import PEERS, prepare
from bench.peers.centrifugo.sender import Api
from bench.peers.socketio.peer import HERE as SOCKETIO
from bench.peers.websockets import Websockets
from bench.run import parse
from bench.works import fanout, handshakes, rss

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="bench needs a C compiler (cc or gcc)"),
    pytest.mark.timeout(90),
]
USERS = 12


def push(number: int) -> str:
    """A publication as Centrifugo writes it, with a text that looks like more than one."""
    publication = {"data": f'@ts={number}@ {{"push":', "offset": number}
    return json.dumps({"push": {"channel": "everyone:all", "pub": publication}}, separators=(",", ":"))


async def test_loadgen_counts_the_messages_of_a_frame_of_centrifugo(tmp_path):
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def centrifugo(socket):
        heard.put_nowait(json.loads(await socket.recv()))
        await socket.send('{"id":1,"connect":{"client":"c","ping":25,"pong":true}}\n' + push(1))
        await socket.send("\n".join([push(2), "{}", push(3), push(4)]))
        await socket.send(push(5) + "\n")
        await socket.send('{"push":{"channel":"everyone:all","join":{"info":{"user":"u"}}}}')
        heard.put_nowait(await socket.recv())
        await socket.wait_closed()

    async with serve(centrifugo, "127.0.0.1", 0, compression=None) as server, Loadgen(tmp_path, "l", 1) as loadgen:
        port = server.sockets[0].getsockname()[1]
        command = '{"id":1,"connect":{"token":"' + "t" * 200 + '"}}'
        await loadgen.connect([f"ws://127.0.0.1:{port}/connection/websocket {command}"], "centrifugo")
        assert await asyncio.wait_for(heard.get(), 5) == json.loads(command)
        seen = await loadgen.received(5, timeout=5)
        assert (seen.messages, seen.fewest) == (5, 5)
        assert await asyncio.wait_for(heard.get(), 5) == "{}"
        stats = await loadgen.stats()
        assert (stats["pings"], stats["protocol_errors"]) == (1, 0)


@pytest.mark.parametrize(
    ("mode", "refusal"),
    [("centrifugo", '{"id":1,"error":{"code":109,"message":"token expired"}}'), ("socketio", '44{"message":"no"}')],
)
async def test_a_greeting_that_is_refused_is_no_open_socket(mode, refusal, tmp_path):
    async def refusing(socket):
        await socket.send(refusal)
        await socket.wait_closed()

    async with serve(refusing, "127.0.0.1", 0, compression=None) as server, Loadgen(tmp_path, "l", 1) as loadgen:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BenchError, match=r"1 of 1 sockets did not open.*protocol_errors 1"):
            await loadgen.connect([f"ws://127.0.0.1:{port}/ hello"], mode)


async def test_loadgen_answers_engine_io_and_counts_events(tmp_path):
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def socket_io(socket):
        await socket.send('0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
        heard.put_nowait(await socket.recv())
        await socket.send('40{"sid":"t","pid":"p"}')
        await socket.send("2")
        heard.put_nowait(await socket.recv())
        await socket.send('42["m","@ts=1@xxx","1-0"]')
        await socket.send('42["other","xxx"]')
        await socket.wait_closed()

    async with serve(socket_io, "127.0.0.1", 0, compression=None) as server, Loadgen(tmp_path, "l", 1) as loadgen:
        port = server.sockets[0].getsockname()[1]
        await loadgen.connect([f'ws://127.0.0.1:{port}/socket.io/?EIO=4 40{{"user":"u"}}'], "socketio")
        assert await asyncio.wait_for(heard.get(), 5) == '40{"user":"u"}'
        assert await asyncio.wait_for(heard.get(), 5) == "3"
        assert (await loadgen.received(1, timeout=5)).messages == 1


async def test_a_connection_that_was_quiet_is_opened_anew(monkeypatch):
    monkeypatch.setattr("bench.peers.centrifugo.sender.QUIET_SECONDS", 0)
    requests = []

    async def api(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        requests.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"replies":[]}')
        writer.close()  # as the node does when a connection was quiet for too long

    async with await asyncio.start_server(api, "127.0.0.1", 0) as server:
        with closing(Api(server.sockets[0].getsockname()[1], "key")) as sender:
            connection = await sender.connection()
            for _ in range(2):
                await sender.publish(connection, ["a", "b"], 64)
    published = [command["publish"] for request in requests for command in request["commands"]]
    assert [publication["channel"] for publication in published] == ["a", "b"] * 2
    assert all(publication["data"].startswith("@ts=") for publication in published)


async def test_a_publication_that_is_refused_is_an_error():
    async def api(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        answer = b'{"replies":[{"error":{"code":102,"message":"unknown channel"}}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        writer.close()

    async with await asyncio.start_server(api, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with closing(Api(port, "key")) as sender, pytest.raises(BenchError, match="unknown channel"):
            await sender.publish(await sender.connection(), ["a"], 64)


@pytest.fixture
def peer_class(request):
    able, left_out = prepare([request.param], build=False)
    if not able:
        pytest.skip(f"{request.param}: {left_out[request.param]}")
    return PEERS[request.param]


@pytest.mark.parametrize("peer_class", PEERS, indirect=True)
async def test_a_peer_delivers_every_message_to_everybody(peer_class, tmp_path):
    async with peer_class(tmp_path, presence=True) as peer:
        await peer.loadgen.connect(peer.mint(0, USERS), peer.mode)
        await peer.loadgen.expect(USERS * 5, timeout=20)
        await peer.shout(300, 5)
        seen = await peer.loadgen.delivered(USERS * 5)
        assert (seen.fewest, seen.most) == (5, 5)
        assert len(peer.pids) == 1


@pytest.mark.parametrize("peer_class", [name for name, peer in PEERS.items() if peer.clusters], indirect=True)
async def test_a_cluster_of_a_peer_delivers_to_users_of_both_servers(peer_class, tmp_path):
    async with peer_class(tmp_path, nodes=2) as peer:
        await peer.loadgen.connect(peer.mint(0, USERS), peer.mode)
        await peer.loadgen.expect(400, timeout=20)
        sent = await peer.talk(128, 400, 1000, USERS, 20)
        seen = await peer.loadgen.delivered(400)
        # 400 messages to twelve users at random: that one of them gets none happens once in 10^14 runs.
        assert (sent.messages, seen.messages) == (400, 400)
        assert seen.fewest > 0
        assert (len(peer.pids), len(peer.senders)) == (2, 1)


class Broken(Websockets):
    """Opens its sockets at first, and then nothing more."""

    def mint(self, first, count):
        return super().mint(first, count) if first == 0 else [f"ws://127.0.0.1:1/{index}" for index in range(count)]

    async def shout(self, size, count):
        raise BenchError("it broke\nsome log\nits last words")


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (fanout.measure_one, "it broke: its last words"),
        (handshakes.measure, "5 of 5 sockets did not open"),
        (rss.measure, "5 of 5 sockets did not open"),
    ],
)
async def test_a_peer_that_fails_is_told_and_ours_is_measured_all_the_same(work, why, monkeypatch):
    monkeypatch.setitem(PEERS, "websockets", Broken)
    sizes = Options(
        rounds=1,
        modes=("plain",),
        rss_sizes=(5,),
        settle_seconds=0.1,
        sockets=5,
        payloads=(64,),
        repeats=1,
        handshakes=5,
        peers=("websockets",),
    )
    row = (await work(sizes))[0]
    assert why in row.failed["websockets"]
    assert not row.peers.get("websockets")
    assert (len(row.ours), row.delivered) == (1, row.expected)


def test_a_peer_that_can_not_be_built_is_left_out_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.peers.centrifugo.build.BUILD", tmp_path)
    able, left_out = prepare(PEERS, build=True)
    assert able == ("websockets",)
    no_go = "it is not built, and there is no go to build it with"
    assert left_out == {"centrifugo": no_go, "centrifugo-redis": no_go, "socketio": "there is no node"}


def test_nothing_is_built_in_a_run_that_may_not(monkeypatch, tmp_path):
    monkeypatch.setattr("bench.peers.centrifugo.build.BUILD", tmp_path)
    able, left_out = prepare(["centrifugo"], build=False)
    assert (able, left_out) == ((), {"centrifugo": "it is not built, and this run builds nothing"})


def test_peers_can_be_chosen():
    assert parse(["rss"])[1].peers == tuple(PEERS)
    assert parse(["rss", "--peers", "none"])[1].peers == ()
    assert parse(["rss", "--peers", "websockets,socketio"])[1].peers == ("websockets", "socketio")
    assert (parse(["rss"])[1].build, parse(["rss", "--quick"])[1].build) == ("yes", "no")


def test_the_lock_file_names_no_registry():
    assert not re.search(r'"resolved"', (SOCKETIO / "package-lock.json").read_text())
