# The worked transcript of docs/protocol.md against a real session with the same steps: the same lines, frames with the
# same fields of the same types in the same order. When it differs, the failure shows the session to paste.

import asyncio
import json
import re
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from imhelper import ImHelper
from tests.support import docs
from tests.support.waiting import eventually
from tests.support.ws import Socket, open_socket

TEXT = docs.read("docs/protocol.md")


def _shape(value: object) -> object:
    """A JSON value without what varies: its fields in order, the types of its values, and its `t`."""
    if isinstance(value, dict):
        return [(key, item if key in ("t", "status", "recovered") else _shape(item)) for key, item in value.items()]
    return type(value).__name__


def _line_shape(line: str) -> object:
    actor, _, rest = line.partition(" ")
    try:
        return actor, _shape(json.loads(rest))
    except ValueError:
        return actor, re.sub(r"(token|since)=\S+", r"\1=…", re.sub(r"ws://[^/ ]+", "ws://HOST", rest))


class Recorder:
    """Writes down what goes over a socket, as the transcript does: `S` from the server, `C` from the client."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def asked(self, url: str, since: str | None = None) -> None:
        self.note(f"C GET {url}{f'&since={since}' if since else ''}")

    async def got(self, socket: Socket) -> dict[str, Any]:
        frame = await socket.recv()
        assert isinstance(frame, str)
        self.note(f"S {frame}")
        parsed: dict[str, Any] = json.loads(frame)
        return parsed

    async def said(self, socket: Socket, **frame: str) -> None:
        text = json.dumps(frame, separators=(",", ":"))
        self.note(f"C {text}")
        await socket.send(text)

    async def closed(self, socket: Socket) -> None:
        code, reason = await socket.closed()
        self.note(f"S close {code} {reason}")


async def _session(redis_url: str, spawn_imservers) -> list[str]:
    servers = await asyncio.to_thread(spawn_imservers, 2, redis_url, IM_SLOTS=16)
    log = Recorder()
    async with ImHelper(redis_url) as im:

        async def both() -> bool:
            topology = await im.topology()
            epochs = {(await asyncio.to_thread(s.metrics))["imserver_topology_epoch"] for s in servers}
            return len(topology.servers) == len(servers) and epochs == {topology.epoch}

        await eventually(both, 20, "a topology with both servers, known to both")
        url = await im.prev_connect_server("alice")
        log.asked(url)
        async with open_socket(url, envelope=True) as alice:
            hello = await log.got(alice)
            await im.join_chan("alice", "room")
            await im.send_message("bob", "alice", {"text": "hi"}, receipt=True)
            first = await log.got(alice)
            await log.said(alice, t="ack", pos=first["pos"])
            await im.send_chan_message("bob", "room", "all")
            await log.got(alice)
            await im.send_message("bob", "alice", b"\x00\xff")
            await log.got(alice)
            await im.send_message("alice", "carol", "anybody?", receipt=True)
            await log.got(alice)
            await log.said(alice, t="ping")
            pong = await log.got(alice)
            alice.abort()
        log.note("- the connection is lost; meanwhile bob sends")
        await im.send_message("bob", "alice", "missed")
        url = await im.prev_connect_server("alice")
        log.asked(url, pong["pos"])
        async with open_socket(url, envelope=True, since=pong["pos"]) as alice:
            assert (await log.got(alice))["recovered"] is True
            await log.got(alice)
            log.note("- the server is told to stop")
            next(s for s in servers if s.name == hello["server"]).terminate()
            move = await log.got(alice)
            log.asked(move["url"], move["pos"])
            async with open_socket(move["url"], envelope=True, since=move["pos"]) as moved:
                await log.got(moved)
                log.note("C close 1000")
                await alice.raw.close()
                with pytest.raises(InvalidStatus) as refused:
                    async with open_socket(move["url"], envelope=True):
                        pass
                log.asked(move["url"])
                response = refused.value.response
                log.note(f"S {response.status_code} {response.body.decode()}")
                await im.disconnect("alice", "logged out")
                await log.closed(moved)
    return log.lines


async def test_the_transcript_is_what_a_session_looks_like(redis_server, spawn_imservers):
    session = await _session(redis_server.url, spawn_imservers)
    (transcript,) = docs.blocks(docs.section(TEXT, "## A worked transcript"), "text")
    said = [_line_shape(line) for line in transcript.splitlines()]
    assert said == [_line_shape(line) for line in session], "paste into docs/protocol.md:\n\n" + "\n".join(session)


def _fields(frame: dict[str, Any]) -> set[str]:
    return set(frame) - {"t"}


def test_the_transcripts_frames_have_the_documented_fields():
    (transcript,) = docs.blocks(docs.section(TEXT, "## A worked transcript"), "text")
    documented = {
        docs.ticked(kind)[0]: (set(docs.ticked(always)), set(docs.ticked(sometimes)))
        for kind, always, sometimes, _ in docs.rows(TEXT, "frame")
    }
    seen = set()
    for line in transcript.splitlines():
        if not re.match(r"[SC] \{", line):
            continue
        frame = json.loads(line[2:])
        if "error" in frame:
            continue
        always, sometimes = documented[frame["t"]]
        assert always <= _fields(frame) <= always | sometimes, line
        seen.add(frame["t"])
    assert seen == set(documented)
