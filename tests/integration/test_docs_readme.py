# The examples of README.md, run: the SDK in ten lines against a real cluster, the page's lines in Node on real sockets,
# and the one command that starts a server beside a Redis of one's own.

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import docs
from tests.support.process import Process
from tests.support.waiting import eventually
from tests.support.ws import open_socket

TEXT = docs.read("README.md")
REDIS_URL = "redis://127.0.0.1:6379"
WS = docs.ROOT / "clients/js/node_modules/ws/wrapper.mjs"


def _sdk(redis_url: str) -> dict[str, Any]:
    (source,) = docs.blocks(TEXT, "python")
    assert REDIS_URL in source
    namespace: dict[str, Any] = {}
    exec(compile(source.replace(REDIS_URL, redis_url), "README.md", "exec"), namespace)  # noqa: S102 - ours
    return namespace


async def test_the_sdk_in_ten_lines(redis_server, spawn_imservers):
    await asyncio.to_thread(spawn_imservers, 2, redis_server.url)
    sdk = _sdk(redis_server.url)
    async with (
        sdk["im"] as im,
        open_socket(await sdk["im_url"]("alice"), envelope=True) as alice,
        open_socket(await sdk["im_url"]("bob"), envelope=True) as bob,
    ):
        assert await sdk["enter"]("bob", "room")
        said = await sdk["say"]("alice", "room", "to all")
        message = await bob.recv_kind("msg")
        assert (message["id"], message["chan"], message["data"]) == (said, "room", {"text": "to all"})
        whispered = await sdk["whisper"]("alice", "bob", "to you")
        message = await bob.recv_kind("msg")
        assert (message["id"], message["from"], message["data"]) == (whispered, "alice", {"text": "to you"})
        await bob.ack(message["pos"])
        receipt = await alice.recv_kind("receipt")
        assert (receipt["id"], receipt["to"], receipt["status"]) == (whispered, "bob", "delivered")
        assert await im.get_online_count() == 2


def _page(url: str, folder: Path) -> Path:
    """The page's lines as a program for Node, with what a page has and Node has not."""
    (source,) = docs.blocks(TEXT, "js")
    client = (docs.ROOT / "clients/js/src/index.js").as_uri()
    program = folder / "page.mjs"
    program.write_text(
        f"import {{ ImClient }} from {json.dumps(client)};\n"
        f"globalThis.WebSocket ??= (await import({json.dumps(WS.as_uri())})).WebSocket;\n"
        f"globalThis.fetch = async () => ({{ text: async () => {json.dumps(url)} }});\n"
        f"const show = (...shown) => console.log(JSON.stringify(shown));\n{source}"
    )
    return program


async def test_the_lines_of_the_page(redis_server, spawn_imservers, processes, tmp_path):
    node = shutil.which("node") or pytest.skip("no Node on this machine (Debian: apt-get install nodejs)")
    if not WS.exists():
        pytest.skip("clients/js has no node_modules: run make setup with npm")
    await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    sdk = _sdk(redis_server.url)
    async with sdk["im"] as im:
        page = _page(await sdk["im_url"]("alice"), tmp_path)
        running = Process("page", [node, str(page)], tmp_path / "page.log")
        processes(running)
        running.launch()
        await eventually(lambda: im.has_online("alice"), 20, "the page online")
        assert await sdk["enter"]("alice", "room")
        await sdk["say"]("bob", "room", "hello page")
        await eventually(lambda: '["bob","room","hello page"]' in running.output, 10, "the message on the page")


def test_the_command_that_starts_a_server_names_settings():
    from imserver.settings import load_settings

    (command,) = (
        line for block in docs.blocks(TEXT, "sh") for line in block.splitlines() if line.endswith(" imserver")
    )
    environment = dict(word.split("=", 1) for word in command.split()[:-1])
    assert set(environment) == {"IM_REDIS_URL", "IM_URL"}
    assert load_settings(environment).url == environment["IM_URL"]
