# The helper in forty lines of docs/data-model.md, run against a real cluster: a page for writers of other helpers must
# hold enough to write one.

import asyncio
from typing import Any

from imhelper.core.payload import message_id
from tests.support import docs
from tests.support.ws import open_socket


async def test_the_tiny_helper_connects_and_sends(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    (source,) = docs.blocks(docs.read("docs/data-model.md"), "python")
    namespace: dict[str, Any] = {}
    exec(compile(source, "docs/data-model.md", "exec"), namespace)  # noqa: S102 - the example is ours
    tiny = await asyncio.to_thread(namespace["TinyHelper"], redis_server.url, docs.ROOT / "helper/src/imhelper/lua")
    token = await asyncio.to_thread(tiny.mint, "alice", "a phone")
    async with open_socket(f"{server.url}?token={token}", envelope=True) as alice:
        assert (await alice.recv_kind("hello"))["client"] == "alice"
        for _ in range(2):
            # The second is a retry of the first.
            sent = await asyncio.to_thread(tiny.send_text, "bob", "alice", "hello", "k-1")
        await asyncio.to_thread(tiny.send_text, "bob", "alice", "again", "k-2")
        first, second = await alice.recv_kind("msg"), await alice.recv_kind("msg")
        assert (first["id"], first["data"], second["data"]) == (sent, "hello", "again")
        assert sent == message_id("bob", "k-1")
    tiny.redis.close()
