# Each work of the benchmarks runs with tiny sizes and counts right: nothing here looks at how long anything took.
# The load generator and the floor, which judge imserver, are themselves checked against a few sockets of their own.

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.build import compiler
from bench.errors import BenchError
from bench.natives import Floor, Loadgen
from bench.options import GROWS
from bench.run import WORKS, parse

ROOT = Path(__file__).parents[2]
TINY = {
    "rounds": "2",
    "rss-sizes": "10,20",
    "settle-seconds": "0.1",
    "sockets": "20",
    "repeats": "2",
    "burst": "5",
    "members": "20",
    "handshakes": "15",
    "clients": "10",
    "rate": "100",
    "seconds": "0.3",
    "single": "10",
    "addressees": "10",
    "rates": "100",
    "peers": "websockets,socketio",
    "build": "no",
    "connections": "40",
    "known": "10,40",
    "channels": "5,20",
    "grown-members": "5,20",
    "grown-slots": "16,32",
    "grown-servers": "1,2",
    "history": "2,20",
    "calls": "20",
    "sends": "40",
    "in-flight": "4,8",
    "receivers": "5",
    "churn-rounds": "3",
    "churn": "20",
    "returning": "20",
    "crowd": "40",
    "crowd-rate": "50",
    "crowd-seconds": "2",
    "shout-seconds": "1",
    "ping-seconds": "1",
}
# Frames (or sockets) that each row of a work must have seen, from the sizes above.
EXPECTED = {
    "rss": [30, 40] * 2,
    "fanout": [20 * 2 * 2] * 2,
    "burst": [20 * 5 * 2] * 2,
    "large": [2 * (2 * 30 + 20 * 2)] * 2,
    "handshakes": [15 + 2 * 15] * 2,
    "direct": [10] * 3 + [2 * 30] * 7,
    "rss4": [200 + 40] * 2,
    "queries": [2 * 20] * 15 + [2] * 6,
    # A channel of clients in all 128 slots, and five receivers in slots of their own.
    "helper": [2 * 40] * 11 + [2 * 2 * 128] * 3 + [2 * 2 * 5] * 3,
    "kill": [2 * 20] * 5,
    "churn": [3 * 20] * 7,
    "crowd": [40] * 3 + [2 * 40 + 2 * 50] * 9,
}
# Rounds of the peer that is always there, in each row of the works that it takes part in.
BESIDE_WEBSOCKETS = {"rss": [1] * 4, "fanout": [2] * 2, "burst": [2] * 2, "handshakes": [2, 0]}
# The same of what grows: 1:1 messages, but two to a channel of twenty, and one to its twenty members.
GROWN = dict.fromkeys(GROWS, 2 * 30) | {"channels": 2 * 2 * 20, "members": 2 * 20}
RUN_SECONDS = 100

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="bench needs a C compiler (cc or gcc)"),
    pytest.mark.timeout(RUN_SECONDS + 20),
]


def run_bench(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `python -m bench`; its whole process group is gone afterwards, whatever happened."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"bench did not end within {RUN_SECONDS} s:\n{output}")
    return process.returncode, output


@pytest.mark.parametrize("work", sorted(WORKS.keys() - {"growth"}))
def test_every_frame_of_a_work_arrives_and_is_counted(work, tmp_path):
    file = tmp_path / "result.json"
    sizes = [part for name, value in TINY.items() for part in (f"--{name}", value)]
    code, output = run_bench(work, "--json", str(file), *sizes)
    assert code == 0, output
    rows = json.loads(file.read_text())["rows"]
    assert [row["delivered"] for row in rows] == EXPECTED[work]
    assert [row["expected"] for row in rows] == EXPECTED[work]
    assert {row["work"] for row in rows} == {work}
    assert all(row["what"] in output for row in rows)
    rounds = [len(row["peers"].get("websockets", ())) for row in rows]
    assert rounds == BESIDE_WEBSOCKETS.get(work, [0] * len(rows))


@pytest.mark.parametrize("what", GROWS)
def test_every_frame_arrives_whatever_grows(what, tmp_path):
    file = tmp_path / "result.json"
    sizes = [part for name, value in TINY.items() for part in (f"--{name}", value)]
    code, output = run_bench("growth", "--grow", what, "--json", str(file), *sizes)
    assert code == 0, output
    rows = json.loads(file.read_text())["rows"]
    assert [(row["delivered"], row["expected"]) for row in rows] == [(GROWN[what], GROWN[what])] * 3


@pytest.mark.skipif(
    shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None, reason="needs py-spy"
)
def test_a_work_leaves_flame_graphs_and_what_redis_did(tmp_path):
    sizes = [part for name, value in TINY.items() for part in (f"--{name}", value)]
    code, output = run_bench("direct", "--flame", str(tmp_path / "flame"), *sizes)
    if "Permission denied" in output or "not permitted" in output:
        pytest.skip("py-spy may not look into processes here")
    assert code == 0, output
    assert sorted(file.name for file in (tmp_path / "flame").iterdir()) == [
        "direct-helper.svg",
        "direct-redis.txt",
        "direct-server.svg",
    ]
    assert "<svg" in (tmp_path / "flame" / "direct-server.svg").read_text()
    assert "evalsha" in (tmp_path / "flame" / "direct-redis.txt").read_text()


@pytest.mark.parametrize("mode", ["plain", "envelope"])
@pytest.mark.parametrize("size", [32, 125, 126, 65_535, 65_536, 300_000])
async def test_loadgen_counts_what_the_floor_sends(mode, size, tmp_path):
    async with Floor(tmp_path) as floor, Loadgen(tmp_path, "loadgen", 1) as loadgen:
        await loadgen.connect(floor.mint(30), mode)
        await loadgen.expect(30 * 7)
        sent = await floor.send(size, 7)
        seen = await loadgen.delivered(30 * 7)
        assert sent["sends"] == 30 * 7
        assert (seen.messages, seen.fewest, seen.most) == (30 * 7, 7, 7)
        assert (await loadgen.stats())["bytes"] == 30 * 7 * size


async def test_loadgen_keeps_latencies_of_channel_messages_apart_and_tells_positions(tmp_path):
    """Against a server made here, for the floor sends neither."""
    handshake = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    handshake += "Sec-WebSocket-Protocol: imcluster.v1.json\r\n\r\n"
    answered, left = 0, asyncio.Semaphore(0)

    async def serve(reader, writer):
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        frames = [b'{"t":"hello","pos":"7.1-%d"}' % answered, b'{"t":"msg","pos":"7.2-%d","data":"@ts=1@"}' % answered]
        if answered == 2:
            frames += [b'{"t":"msg","data":"@tc=1@"}']
        writer.write(handshake.encode() + b"".join(bytes((0x81, len(text))) + text for text in frames))
        await reader.read()
        writer.close()
        left.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Loadgen(tmp_path, "loadgen", 1) as loadgen:
        await loadgen.connect([f"ws://127.0.0.1:{port}/ws?token={n}" for n in range(2)], "envelope", concurrency=1)
        seen = await loadgen.received(3, timeout=10)
        assert (seen.latency_us["count"], seen.channel_latency_us["count"]) == (2, 1)
        assert await loadgen.positions() == ["7.2-1", "7.2-2"]
    async with asyncio.timeout(10):
        for _ in range(2):
            await left.acquire()


async def test_loadgen_reports_messages_that_do_not_come(tmp_path):
    async with Floor(tmp_path) as floor, Loadgen(tmp_path, "loadgen", 1) as loadgen:
        await loadgen.connect(floor.mint(3))
        await loadgen.expect(4, timeout=0.2)
        await floor.send(64, 1)
        with pytest.raises(BenchError, match=r"4 messages were due; it saw .*messages 3"):
            await loadgen.delivered(4)


async def test_loadgen_reports_sockets_that_do_not_open(tmp_path):
    async with Loadgen(tmp_path, "loadgen", 1) as loadgen, Floor(tmp_path) as floor:
        refused = floor.mint(1)[0].replace("/ws?", "/" + "x" * 1500 + "?")
        with pytest.raises(BenchError, match="1 of 2 sockets did not open"):
            await loadgen.connect([*floor.mint(1), "ws://127.0.0.1:1/ws?token=nobody-listens"])
        await loadgen.connect([refused])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "no such work: nonsense"),
        (["--rss-sizes", "200,100"], "--rss-sizes must rise"),
        (["--sockets", "0"], "--sockets must be above 0"),
        (["--sockets", "19000"], "sockets fit into one process"),
        (["--payloads", "8"], "--payloads must be at least 32"),
        (["--modes", "plain,other"], "--modes must be of plain, envelope"),
        (["--grow", "weeds"], "--grow must be of clients, channels"),
        (["--known", "5"], "--known must be two numbers, the smaller first"),
        (["--history", "20,10"], "--history must be two numbers, the smaller first"),
        (["--channels", "100,2000000"], "--channels must not be more than --known"),
        (["--rate", "fast"], "invalid int value: 'fast'"),
        (["--rates", "100,0"], "--rates must be above 0"),
        (["--peers", "nginx"], "--peers must be of centrifugo, centrifugo-redis, websockets, socketio, or none"),
        (["--build", "perhaps"], "--build must be yes or no"),
    ],
)
def test_a_bad_size_is_refused_in_one_sentence(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_quick_takes_the_small_sizes_and_a_given_size_wins():
    works, options, _, _ = parse(["rss", "--quick", "--rounds", "4"])
    assert works == ["rss"]
    assert (options.rounds, options.sockets) == (4, 500)
