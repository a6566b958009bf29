# What ends presence does a bounded amount at a call, however many channels and receipts its clients have.
# Counted, never timed; and with enough calls all of it is done, once.

from collections import Counter

import pytest

from imhelper._backend.aio import Link
from imhelper.core.scripts import load

RETENTION = (10000, 1 << 24, 60000)


async def online(link: Link, names: list[str], chans: int = 0) -> None:
    await link.command(0, "SADD", "{im:0}:online", *names)
    for name in names:
        for chan in range(chans):
            assert await link.eval(load("join"), 0, *RETENTION, 5, name, f"room{chan}") == 1


async def sweep(link: Link) -> tuple[int, int, int]:
    gone, decided, more, _ = await link.eval(load("sweep"), 0, 100, *RETENTION)
    return gone, decided, more


async def offline_events(link: Link) -> Counter[bytes]:
    return Counter(f[3] for _, f in await link.command(0, "XRANGE", "{im:0}:ev", "-", "+") if f[1] == b"off")


async def test_a_sweep_ends_fewer_clients_the_more_channels_they_are_in(link):
    names = [f"c{n}" for n in range(20)]
    await online(link, names, chans=60)
    for name in names:
        await link.command(0, "ZADD", "{im:0}:grace", 1, name)
        await link.command(0, "HSET", "{im:0}:gm", name, "5\nmeta")
    assert [await sweep(link) for _ in range(3)] == [(9, 0, 1), (9, 0, 1), (2, 0, 0)]
    assert await offline_events(link) == Counter(n.encode() for n in names)
    assert await link.command(0, "HGETALL", "{im:0}:chans") == []
    # What a replay needs to know of each membership is kept.
    assert await link.command(0, "LLEN", "{im:0}:past:c0") == 60


async def test_the_receipts_of_one_client_are_decided_in_bounded_calls_and_each_once(link):
    await online(link, ["c"])
    ids = [f"m{n}" for n in range(650)]
    for message_id in ids:
        await link.eval(load("send"), 0, *RETENTION, message_id, 60000, "s", "t", "hi", 1, 7, 5, "c")
    assert await link.eval(load("disconnect"), 0, *RETENTION, 5, "c", "") == 0
    assert await link.command(0, "ZCARD", "{im:0}:pend:c") == 150
    assert [await sweep(link) for _ in range(2)] == [(0, 100, 1), (0, 50, 0)]
    receipts = [f for _, f in await link.command(0, "XRANGE", "{im:0}:log:7", "-", "+")]
    assert Counter((f[1], f[3], f[7]) for f in receipts) == Counter((i.encode(), b"c", b"o") for i in ids)
    assert await link.command(0, "ZCARD", "{im:0}:due") == 0


@pytest.mark.parametrize("script", ["close", "reclaim"])
async def test_many_that_go_at_once_without_grace_go_at_the_next_sweep(link, script):
    names = [f"c{n}" for n in range(20)]
    await link.eval(load("boot"), 0, "b1")
    await online(link, names, chans=60)
    for n, name in enumerate(names, 1):
        await link.command(0, "HSET", f"{{im:0}}:sk:{name}", f"b1.{n}", "0-0\ne\n1\nmeta")
        await link.command(0, "HSET", "{im:0}:bs:b1", n, f"5\n{name}")
    if script == "close":
        ends = [x for n in range(1, 21) for x in (n, "-")]
        assert await link.eval(load("close"), 0, "b1", 0, *RETENTION, *ends) == 20
    else:
        assert (await link.eval(load("reclaim"), 0, "b1", 100, 0, *RETENTION, "0"))[:2] == [20, 0]
    assert await link.command(0, "SCARD", "{im:0}:online") == 11
    assert [await sweep(link) for _ in range(2)] == [(9, 0, 1), (2, 0, 0)]
    assert await offline_events(link) == Counter(n.encode() for n in names)


async def test_a_server_that_starts_again_and_again_leaves_a_bounded_number_of_marks(link):
    now = int((await link.command(None, "TIME"))[0]) * 1000
    before = [x for n in range(999) for x in (f"old{n}", now - 1000 + n)]
    for group, key in ((None, "{im}:fenced"), (0, "{im:0}:ended")):
        await link.command(group, "HSET", key, *before)
    for n in range(5):
        await link.eval(load("beat"), None, "s", f"b{n}", 1, "{}", "", 0)
        await link.eval(load("reclaim"), 0, f"b{n}", 100, 0, *RETENTION, "0")
    await link.eval(load("fence"), None, "s", "b4", 0)
    for group, key in ((None, "{im}:fenced"), (0, "{im:0}:ended")):
        marks = set(await link.command(group, "HKEYS", key))
        assert len(marks) == 1000 and {b"b%d" % n for n in range(5)} <= marks
        assert {b"old0", b"old3", b"old4"} & marks == {b"old4"}, "the oldest go"
    yesterday = now - 86_500_000
    await link.command(None, "HSET", "{im}:fenced", "b0", yesterday, "b1", yesterday)
    await link.eval(load("beat"), None, "s", "b5", 1, "{}", "", 0)
    await link.eval(load("beat"), None, "s", "b6", 1, "{}", "", 0)
    assert not {b"b0", b"b1"} & set(await link.command(None, "HKEYS", "{im}:fenced"))


async def test_memberships_for_replays_are_bounded_by_the_newest(link):
    await online(link, ["c"], chans=1100)
    rooms = [f"room{n}" for n in range(1100)]
    assert await link.eval(load("leave"), 0, *RETENTION, 5, "c", *rooms) == 1100
    past = await link.command(0, "LRANGE", "{im:0}:past:c", 0, -1)
    assert [span.split()[2] for span in past] == [room.encode() for room in rooms[100:]]
