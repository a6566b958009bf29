# Everyone comes back at once: what it costs Redis is bounded by time and slots, not by the number of clients.

import asyncio
from time import monotonic

import pytest

from imhelper import ImHelper
from imserver.replay import SCAN_BURST, SCAN_RATE
from tests.support.cluster import connected
from tests.support.crowd import crowd, disperse

CLIENTS = 5000


@pytest.mark.timeout(180)
@pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)
async def test_five_thousand_resume_at_once_by_few_scans(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=30)
    names = [f"c{n}" for n in range(CLIENTS)]
    async with (
        ImHelper(redis_server.url, token_ttl=120, timeout=30) as im,
        connected(server, im, "connected") as connected_one,
    ):
        urls = await asyncio.gather(*map(im.prev_connect_server, names))
        clients = await crowd(urls, b'"hello"')
        assert {c.status for c in clients} == {101}
        starts = [c.pos for c in clients]
        await disperse(clients)
        for n in range(4):
            await im.send_message("s", names, f"missed {n}")
        urls = await asyncio.gather(*map(im.prev_connect_server, names))
        redis_server.command("CONFIG", "RESETSTAT")
        began = monotonic()
        storm = asyncio.create_task(crowd(urls, b'"missed 3"', since=starts, at_once=CLIENTS))
        # Who is connected goes on getting messages while the storm is under way.
        got = 0
        while not storm.done():
            await im.send_message("s", "connected", got)
            assert await connected_one.recv(30) == str(got)
            got += 1
            await asyncio.sleep(0.05)
        clients = await storm
        seconds = monotonic() - began
        with redis_server.client() as client:
            calls = client.info("commandstats")["cmdstat_xrange"]["calls"]
        await disperse(clients)
    assert all(c.seen.count(b'"missed') == 4 and b'"recovered":true' in c.seen for c in clients)
    # The handshake's script looks at one entry: is anything missing after `since`? The rest are scans.
    scans = calls - CLIENTS
    print(f"{CLIENTS} clients came back in {seconds:.1f} s by {scans} scans")
    assert got > 3
    assert 0 < scans <= SCAN_BURST + SCAN_RATE * seconds
