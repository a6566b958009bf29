# Receipts as the scripts decide them: many at a time share an entry, for each entry holds the payload.
# Sizes and numbers of entries, never times.

from collections import Counter

import pytest

from imhelper import ImHelper
from imhelper._async import sending
from imhelper._backend.aio import Link
from imhelper.core.scripts import load
from imhelper.core.slots import slot_of
from tests.support.boot import Boot

HOME = slot_of("sender", 128)
RETENTION = (10000, 1 << 24, 60000)


async def receipts(link: Link, slot: int = HOME, group: int = 0) -> list[tuple[bytes, list[bytes], bytes]]:
    """The entries of receipts in a log: id, receivers, status."""
    log = await link.command(group, "XRANGE", f"{{im:{group}}}:log:{slot}", "-", "+")
    return [(f[1], f[3].split(b"\n"), f[7]) for _, f in log if f[0] == b"r"]


async def send(link: Link, message_id: str, receivers: dict[int, list[str]], receipt: int = 1) -> int:
    by_slot = [x for slot, names in receivers.items() for x in (slot, "\n".join(names))]
    args = (*RETENTION, message_id, 60000, "sender", "t", "p" * 1000, receipt, HOME, *by_slot)
    appended: int = await link.eval(load("send"), 0, *args)
    return appended


async def test_those_who_are_offline_at_a_send_share_one_entry(link):
    assert await send(link, "id", {5: ["a", "b"], 6: ["c"]}) == 1
    assert await receipts(link) == [(b"id", [b"a", b"b", b"c"], b"o")]


async def test_those_who_ack_or_go_together_share_one_entry(link):
    names = [f"c{n}" for n in range(6)]
    await link.command(0, "SADD", "{im:0}:online", *names)
    for message_id in ("id1", "id2"):
        await send(link, message_id, {5: names})
    acks = [x for name in names[:4] for x in (name, 0, 2)]
    assert await link.eval(load("ack"), 0, *RETENTION, *acks) == [0] * 4
    first = [n.encode() for n in names[:4]]
    # Which of a client's messages is first is the hash's to say.
    assert sorted(await receipts(link)) == [(b"id1", first, b"d"), (b"id2", first, b"d")]
    await link.command(0, "ZADD", "{im:0}:grace", 1, "c4", 1, "c5")
    await link.eval(load("sweep"), 0, 100, *RETENTION)
    assert sorted(await receipts(link))[1::2] == [(b"id1", [b"c4", b"c5"], b"o"), (b"id2", [b"c4", b"c5"], b"o")]
    assert await link.command(0, "KEYS", "{im:0}:rp:*") == [], "nothing is owed any more"


async def test_an_ack_looks_at_what_it_covers_and_decides_a_bounded_number(link):
    await link.command(0, "SADD", "{im:0}:online", "c", "d")
    for n in range(700):
        await send(link, f"m{n}", {5: ["c"] if n else ["c", "d"]})
    calls = [await link.eval(load("ack"), 0, *RETENTION, "c", lo, hi, "d", 0, 1) for lo, hi in [(600, 650), (0, 640)]]
    assert calls == [[650, 0], [-1, -1]]
    assert await link.command(0, "ZCARD", "{im:0}:pend:c") == 150
    assert await link.eval(load("ack"), 0, *RETENTION, "c", 0, 640, "d", 0, 1) == [50, 0]
    assert await link.command(0, "ZRANGE", "{im:0}:pend:c", 0, 0) == [b"m650"]
    told = [(message_id, to) for message_id, receivers, _ in await receipts(link) for to in receivers]
    assert len(told) == len(set(told)) == 651


async def test_receipts_of_another_groups_outbox_are_delivered_together_and_once(link):
    args = (*RETENTION, HOME, "id", "a\nb", "sender", "o", "t", "p")
    assert [await link.eval(load("receipt"), 0, *args) for _ in range(3)] == [1, 0, 0]
    assert await receipts(link) == [(b"id", [b"a", b"b"], b"o")]


@pytest.mark.parametrize("again", [2, 1])
async def test_a_send_in_parts_reaches_each_receiver_once_however_it_is_repeated(link, again):
    await link.command(0, "SADD", "{im:0}:online", "a", "b", "c", "d")
    assert await send(link, "id", {5: ["a", "b"]}, 2) == 1
    # The reply was lost, and one of the receivers is asked for with the next part.
    assert await send(link, "id", {5: ["b"], 6: ["c"]}, 2) == 1
    assert await send(link, "id", {5: ["a", "b"], 6: ["c", "d"]}, again) == 1
    logs = [await link.command(0, "XRANGE", f"{{im:0}}:log:{slot}", "-", "+") for slot in (5, 6)]
    assert [[f[9] for _, f in log] for log in logs] == [[b"a\nb"], [b"c", b"d"]]
    assert {f[7] for log in logs for _, f in log} == {b"1"}
    assert await link.command(0, "HGET", "{im:0}:rp:id", "n") == b"4"
    assert 0 < await link.command(0, "PTTL", "{im:0}:idem:id") <= 60000


async def test_a_part_of_what_was_sent_as_a_whole_is_not_sent_again(link):
    assert [await send(link, "id", {5: ["a"]}, receipt) for receipt in (1, 2)] == [1, 0]


async def test_many_receivers_dont_flood_the_log_of_the_senders_slot(redis_server, monkeypatch):
    monkeypatch.setattr(sending, "PART", 100)
    boot = Boot(redis_server.url, "im")
    boot.publish()
    names = [f"nobody{n}" for n in range(400)]
    async with ImHelper(redis_server.url) as im:
        key = {"idempotency_key": "k"}
        first = await im.send_message("sender", names, "p" * 60_000, receipt=True, **key)
        assert await im.send_message("sender", names[::-1], "p" * 60_000, receipt=True, **key) == first
        assert await im.send_message("sender", names[:7], "p" * 60_000, receipt=True, **key) == first
    log = boot.log(slot_of("sender", boot.slots))
    told = [entry[b"f"].split(b"\n") for entry in log if b"r" in entry and b"h" not in entry and b"m" not in entry]
    assert len(told) <= 5 and max(map(len, told)) <= 100
    assert Counter(name for some in told for name in some) == Counter(n.encode() for n in names)
    sent = Counter(n for slot in range(boot.slots) for e in boot.log(slot) if b"m" in e for n in e[b"c"].split(b"\n"))
    assert sent == Counter(n.encode() for n in names)
