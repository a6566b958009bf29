# Sends whose outcome the sender never learns: it dies, is cancelled, or some of Redis is away.
# Repeating with the key is always safe, and what is not covered is told exactly.

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.crc import key_slot

from imhelper import ImHelper, RedisUnavailableError
from imhelper.core.keys import global_tag, group_tag
from imhelper.core.payload import message_id
from imhelper.core.slots import group_of, slot_of
from tests.support.boot import Boot
from tests.support.proxy import proxy_to
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
_SENDER = """
import sys
from imhelper.sync import ImHelper
ImHelper(sys.argv[1], timeout=60).send_message("ann", ["bob", "cat"], "once", idempotency_key="k-1")
"""


async def serve(url: str) -> Boot:
    boot = await asyncio.to_thread(Boot, url, "im")
    await asyncio.to_thread(boot.publish)
    return boot


def entries(boot: Boot, receiver: str) -> Counter[str]:
    """How often each message was appended for a receiver."""
    log = boot.log(slot_of(receiver, boot.slots))
    return Counter(e[b"p"].decode() for e in log if b"m" in e and receiver in e[b"c"].decode().split("\n"))


async def test_another_process_repeats_what_one_did_not_live_to_see(redis_server):
    boot = await serve(redis_server.url)
    async with ImHelper(redis_server.url) as helper:
        await helper.send_message("ann", "dan", "so that Redis knows the script")
    async with proxy_to(redis_server.port) as proxy:
        # What is sent arrives, and the answer does not.
        proxy.deafens = b"\r\nonce\r\n"
        command = [sys.executable, "-c", _SENDER, f"redis://127.0.0.1:{proxy.port}"]
        sender = await asyncio.to_thread(subprocess.Popen, command)
        try:
            await eventually(lambda: asyncio.to_thread(entries, boot, "bob"), 20)
            assert sender.poll() is None, "it waits for the answer"
        finally:
            os.kill(sender.pid, signal.SIGKILL)
            await asyncio.to_thread(sender.wait, 10)
    async with ImHelper(redis_server.url) as helper:
        sent = await helper.send_message("ann", ["bob", "cat"], "once", idempotency_key="k-1")
    assert sent == message_id("ann", "k-1")
    assert entries(boot, "bob") == entries(boot, "cat") == {"once": 1}


@pytest.mark.timeout(120)
async def test_with_a_part_of_a_redis_cluster_away_what_is_not_covered_is_told_exactly(redis_cluster):
    for node in redis_cluster:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        node.command("CONFIG", "SET", "appendfsync", "always")
    boot = await serve(redis_cluster[0].url.replace("redis", "redis+cluster", 1))

    def node_of(tag: str) -> int:
        return key_slot(tag.encode()) // -(-16_384 // len(redis_cluster))

    away = next(n for n in range(3) if n not in (0, node_of(global_tag("im"))))
    names = [f"client-{n}" for n in range(64)]
    lost = {n for n in names if node_of(group_tag("im", group_of(slot_of(n, boot.slots), 16))) == away}
    assert 5 < len(lost) < 59
    url = redis_cluster[0].url.replace("redis", "redis+cluster", 1)
    async with ImHelper(url, timeout=2) as helper:
        await helper.send_message("ann", names, "before")
        redis_cluster[away].kill()
        with pytest.raises(RedisUnavailableError) as caught:
            await helper.send_message("ann", names, "partly")
        assert set(caught.value.uncovered) == lost and len(caught.value.uncovered) == len(lost)
        assert all(entries(boot, name)["partly"] == 1 for name in names if name not in lost)
        key = caught.value.idempotency_key
        with pytest.raises(RedisUnavailableError) as again:
            await helper.send_message("ann", names, "partly", idempotency_key=key)
        assert set(again.value.uncovered) == lost and again.value.message_id == caught.value.message_id
        await asyncio.to_thread(redis_cluster[away].start)

        async def covered() -> bool:
            try:
                sent = await helper.send_message("ann", names, "partly", idempotency_key=key)
            except RedisUnavailableError:
                return False
            return sent == caught.value.message_id

        await eventually(covered, 30)
    for name in names:
        assert entries(boot, name) == {"before": 1, "partly": 1}


async def test_a_call_may_be_cancelled_at_any_moment(redis_server):
    boot = await serve(redis_server.url)
    await asyncio.to_thread(boot.connect, (await _url(redis_server.url)))
    before = asyncio.all_tasks()
    calls: dict[str, Callable[[ImHelper, str], Coroutine[Any, Any, Any]]] = {
        "send": lambda im, key: im.send_message("ann", ["bob", "cat"], f"to {key}", idempotency_key=key),
        "chan": lambda im, key: im.send_chan_message("ann", "room", f"in {key}", idempotency_key=key),
        "join": lambda im, key: im.join_chan("here", "room"),
        "url": lambda im, key: im.prev_connect_server("bob"),
        "list": lambda im, key: im.get_client_list_by_online(),
        "bus": lambda im, key: im.event_bus(lambda c, m: None, lambda c, m: None, group="g"),
    }
    cancelled = Counter[str]()
    for turns in range(40):
        for name, call in calls.items():
            key = f"{name}{turns}"
            # A helper of its own, so that connecting and looking at the topology is cut off, too.
            async with ImHelper(redis_server.url) as im:
                task = asyncio.create_task(call(im, key))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if task.cancelled():
                    cancelled[name] += 1
                else:
                    assert task.exception() is None
                # The replies of others are not shifted by it, and the repeated call makes it certain.
                assert await im.has_online("here") and not await im.has_online("bob")
                again = await call(im, key)
                if name in ("send", "chan"):
                    assert again == message_id("ann", key)
    assert set(cancelled) == set(calls)
    assert entries(boot, "bob") == entries(boot, "cat") == {f"to send{n}": 1 for n in range(40)}
    assert asyncio.all_tasks() == before


async def _url(redis_url: str) -> str:
    async with ImHelper(redis_url) as im:
        return await im.prev_connect_server("here")
