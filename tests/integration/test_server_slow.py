# A thousand clients that never read: each is closed once its buffer is full, and what they hold is bounded by settings.
# Who reads gets everything meanwhile, in order.

import asyncio
import socket
from pathlib import Path

import pytest

from imhelper import ImHelper
from imserver.fanout import VISIT_BYTES
from tests.support.cluster import connected
from tests.support.raw import UPGRADE, request
from tests.support.waiting import eventually

CLIENTS = 1000
BUFFER = 65_536
PAYLOAD = 32_768


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, heap only: without the files that it maps."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


async def deaf(url: str) -> socket.socket:
    """A connection that has asked for a WebSocket and reads nothing, not even the answer."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    host, _, rest = url.removeprefix("ws://").partition("/")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, ("127.0.0.1", int(host.rpartition(":")[2])))
    await loop.sock_sendall(made, request("/" + rest, UPGRADE | {"Sec-WebSocket-Protocol": "imcluster.v1.json"}))
    return made


@pytest.mark.timeout(120)
@pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
async def test_a_thousand_that_never_read_cost_no_more_than_their_buffers(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_BUFFER_BYTES=BUFFER, IM_MAX_PAYLOAD_BYTES=PAYLOAD, IM_GRACE_SECONDS=50
    )
    names = [f"c{n}" for n in range(CLIENTS)]
    async with ImHelper(redis_server.url, token_ttl=60, timeout=30) as im, connected(server, im, "reads") as reads:
        urls = await asyncio.gather(*map(im.prev_connect_server, names))
        sockets = await asyncio.gather(*map(deaf, urls))
        try:

            async def all_there() -> bool:
                return await im.get_online_count() == CLIENTS + 1

            await eventually(all_there, 30)
            assert all(await asyncio.gather(*(im.join_chan(name, "room") for name in ("reads", *names))))
            before = most = resident(server.pid)
            sent = 0
            for _ in range(100):
                # Several at once: what waits together is copied into one write a socket.
                texts = [f"{sent + n} ".ljust(PAYLOAD, "x") for n in range(3)]
                await asyncio.gather(*(im.send_chan_message("x", "room", text) for text in texts))
                assert [await reads.recv(30) for _ in texts] == texts
                sent += len(texts)
                most = max(most, resident(server.pid))
                metrics = await asyncio.to_thread(server.metrics)
                if metrics["imserver_slow_consumers_total"] == CLIENTS:
                    break
        finally:
            for made in sockets:
                made.close()
        # A buffer, and what one visit may add before the close.
        bound = CLIENTS * (BUFFER + VISIT_BYTES + PAYLOAD)
        print(f"{sent} messages; {(most - before) / 1e6:.0f} MB of at most {bound / 1e6:.0f}")
        assert most - before < bound
        assert metrics['imserver_disconnects_total{code="4001"}'] == CLIENTS
        assert metrics["imserver_connections"] == 1
        # Until they are cut off the closed ones hold what they had not read, and the metric says so.
        assert BUFFER < metrics["imserver_write_buffer_bytes"] < bound
