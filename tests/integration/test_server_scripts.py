# Scripts by themselves, where two race for the same thing: publishers, boots of a name, retries of a lost reply.
# A server never does most of this in order; Redis must hold the line whatever the order is.

import asyncio
import time
from typing import Any

import pytest

from imhelper._backend.aio import Link
from imhelper.core.scripts import load
from imhelper.core.slots import slot_of
from imhelper.core.tokens import make_token
from imserver.recording import record

RETENTION = (10000, 1 << 24, 60000)


class Client:
    """The calls of a server for one client, with a boot of its own."""

    def __init__(self, link: Link, boot: str, client: str = "c") -> None:
        self.link, self.boot, self.client, self.slot = link, boot, client, slot_of(client, 128)

    async def start(self) -> "Client":
        self.inc = await self.link.eval(load("boot"), 0, self.boot)
        return self

    async def mint(self) -> str:
        token = make_token(self.slot)
        await self.link.eval(load("mint"), 0, token, 10000, self.client, "meta")
        return token

    async def connect(
        self,
        n: int,
        token: str,
        since: tuple[str, str] = ("", ""),
        max_sockets: int = 16,
        mode: str = "e",
        deadline: tuple[int, ...] = (),
    ) -> list[Any]:
        reply: list[Any] = await self.link.eval(
            *(load("connect"), 0, self.boot, n, token, self.slot, mode, *since, max_sockets, *RETENTION, self.inc),
            *deadline,
        )
        return reply

    async def close(self, n: int, grace: int = 60000, place: str = "") -> int:
        gone: int = await self.link.eval(load("close"), 0, self.boot, grace, *RETENTION, n, place)
        return gone

    async def reclaim(self, batch: int = 100, cursor: bytes = b"0", grace: int = 0) -> tuple[int, int, bytes]:
        gone, left, cursor = await self.link.eval(load("reclaim"), 0, self.boot, batch, grace, *RETENTION, cursor)
        return gone, left, cursor

    async def send(self, number: int) -> str:
        message = (f"m{number}", 60000, "sender", "t", "hello", 0, "", self.slot, self.client)
        await self.link.eval(load("send"), 0, *RETENTION, *message)
        last: bytes = await self.link.command(0, "HGET", "{im:0}:last", self.slot)
        return last.decode()

    async def online(self) -> bool:
        return bool(await self.link.command(0, "SISMEMBER", "{im:0}:online", self.client))

    async def events(self) -> list[bytes]:
        return [fields[1] for _, fields in await self.link.command(0, "XRANGE", "{im:0}:ev", "-", "+")]


async def test_a_handshake_after_its_deadline_records_nothing_and_uses_nothing_up(link):
    server = await Client(link, "b1").start()
    token = await server.mint()
    seconds, micros = await link.command(None, "TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    word, told = await server.connect(7, token, deadline=(now - 1,))
    assert word == b"late" and now <= int(told) < now + 60_000
    assert not await server.online() and await link.command(0, "HLEN", "{im:0}:bs:b1") == 0
    assert (await server.connect(7, token, deadline=(now + 60_000,)))[0] == b"ok"
    # Asked again after a lost reply: on record is on record.
    assert (await server.connect(7, token, deadline=(now - 1,)))[0] == b"ok"


async def test_a_clock_that_another_node_has_refuses_no_handshake(link):
    server = await Client(link, "b1").start()
    args = (server.slot, "e", "", "", 16, *RETENTION, server.inc)
    for number, ahead in enumerate((-86_400_000, 0, 86_400_000)):
        now = time.time() * 1000 - ahead
        reply = await record(link, lambda: now, 0, "b1", number, await server.mint(), *args)  # noqa: B023
        assert reply[0] == b"ok", ahead


async def test_a_handshake_whose_reply_was_lost_is_answered_again_and_recorded_once(link):
    server = await Client(link, "b1").start()
    token = await server.mint()
    first = await server.connect(7, token)
    assert first[0] == b"ok" and await server.connect(7, token) == first
    assert (await server.connect(8, token))[0] == b"unknown", "another handshake with the same token"
    assert await link.command(0, "HLEN", "{im:0}:sk:c") == 1
    assert await server.events() == [b"on"]
    assert await server.close(7) == 1 and await server.close(7) == 0


@pytest.mark.parametrize("since", [("-", "0-0"), ("1", "0-0")])
async def test_a_position_that_is_not_believed_is_not_believed_when_asked_again_either(link, since):
    server = await Client(link, "b1").start()
    token = await server.mint()
    first = await server.connect(7, token, since)
    assert first[5] == 0 and await server.connect(7, token, since) == first


async def test_of_two_servers_with_one_token_one_gets_it(link):
    servers = [await Client(link, f"b{n}").start() for n in range(8)]
    token = await servers[0].mint()
    replies = await asyncio.gather(*(s.connect(1, token) for s in servers))
    assert sorted(r[0] for r in replies) == [b"ok"] + [b"unknown"] * 7


async def test_tokens_die_with_a_disconnect_and_new_ones_live(link):
    server = await Client(link, "b1").start()
    before = [await server.mint() for _ in range(2)]
    await server.connect(1, before.pop())
    assert await link.eval(load("disconnect"), 0, *RETENTION, server.slot, "c", "bye") == 1
    assert (await server.connect(2, before[0]))[0] == b"unknown"
    assert not await server.online()
    assert (await server.connect(3, await server.mint()))[0] == b"ok"
    assert await server.events() == [b"on", b"off", b"on"]


async def test_a_boot_without_a_marker_records_nothing(link):
    dead, alive = await Client(link, "dead").start(), await Client(link, "alive").start()
    await dead.connect(1, await dead.mint())
    token = await dead.mint()
    assert await dead.reclaim() == (1, 0, b"0")
    assert (await dead.connect(2, token))[0] == b"fenced"
    assert await link.eval(load("wake"), 0, "dead", "w", "") == 0
    assert await link.eval(load("positions"), 0, "dead", 2, dead.slot, "1-1") == 0
    keys = await link.command(0, "KEYS", "*dead*")
    assert keys == []
    assert (await alive.connect(1, token))[0] == b"ok", "the token was not used up"
    assert await link.eval(load("boot"), 0, "dead") is None, "nor does it get another marker"
    assert (await dead.connect(3, await dead.mint()))[0] == b"fenced"
    assert await alive.reclaim() == (1, 0, b"0")


async def test_marks_of_ended_boots_are_kept_for_a_day(link):
    old, new = await Client(link, "old").start(), await Client(link, "new").start()
    await old.reclaim()
    yesterday = int((await link.command(None, "TIME"))[0]) * 1000 - 86_500_000
    await link.command(0, "HSET", "{im:0}:ended", "old", yesterday)
    await new.reclaim()
    assert await link.command(0, "HKEYS", "{im:0}:ended") == [b"new"]


@pytest.mark.parametrize("reclaimed", [True, False], ids=["reclaimed", "not yet reclaimed"])
async def test_a_report_that_is_older_than_a_plain_socket_says_nothing_of_it(link, reclaimed):
    """Found by chaos: a server that died right after a plain client had come to it, before its next report."""
    dead, second, third, fourth = [await Client(link, boot).start() for boot in ("b1", "b2", "b3", "b4")]
    await dead.connect(1, await dead.mint(), mode="p")
    place = await dead.send(1)
    await link.eval(load("positions"), 0, "b1", 1, dead.slot, place)
    missed = await dead.send(2)
    await link.eval(load("positions"), 0, "b2", 0, dead.slot, missed)
    await dead.reclaim(grace=60000)
    assert (await second.connect(1, await second.mint(), mode="p"))[4].decode() == place
    if reclaimed:
        await second.reclaim(grace=60000)
    *_, start, _, _, _, _, others = await third.connect(1, await third.mint(), mode="p")
    if reclaimed:
        assert (start.decode(), others) == (place, [])
        later = await third.send(3)
        await link.eval(load("positions"), 0, "b3", 1, third.slot, later)
        await third.reclaim(grace=60000)
        assert (await fourth.connect(1, await fourth.mint(), mode="p"))[4].decode() == later, "what knew of it counts"
    else:
        # The server asks b2, which is dead; then what is on record counts.
        assert others == [b"b2", b"1", place.encode()]


async def test_the_place_of_a_clients_last_plain_socket_is_kept_for_its_next_one_within_grace(link):
    server = await Client(link, "b1").start()
    await server.connect(1, await server.mint(), mode="p")
    place = await server.send(1)
    assert await server.close(1, place=place) == 1
    later = await server.send(2)
    await server.connect(2, await server.mint(), mode="e")
    assert (await server.connect(3, await server.mint(), mode="p"))[4].decode() == place, "an envelope one takes it not"
    # One more begins where the others are, as their servers are asked, and so nothing is kept when one of them goes.
    assert (await server.connect(4, await server.mint(), mode="p"))[9] == [b"b1", b"3", place.encode()]
    await server.close(3, place=place)
    await server.close(4, place=later)
    last = await server.send(3)
    assert (await server.connect(5, await server.mint(), mode="p"))[4].decode() == later
    await server.close(5, place=later, grace=1)
    await asyncio.sleep(0.01)
    assert (await server.connect(6, await server.mint(), mode="p"))[4].decode() == last, (
        "the envelope one kept it online"
    )


async def test_a_reclaim_goes_in_bounded_batches_that_another_can_go_on_with(link):
    dead = [await Client(link, "dead", f"c{n}").start() for n in range(600)]
    for n, client in enumerate(dead):
        await client.connect(n, await client.mint())
    gone, left, cursor = await dead[0].reclaim(50)
    assert 0 < gone <= 200 and left == 600 - gone
    assert (await dead[0].connect(1000, await dead[0].mint()))[0] == b"fenced", "from the first batch on"
    boots, dying = await link.eval(load("orphans"), 0)
    assert (boots, dying) == ([], [b"dead"]), "whoever looks knows that there is more to do"
    while left:
        gone, left, cursor = await dead[0].reclaim(50, cursor)
    assert await link.eval(load("orphans"), 0) == [[], []]
    assert await link.command(0, "SCARD", "{im:0}:online") == 0


async def test_a_reclaim_of_very_many_sockets_comes_to_its_end(link):
    dead = await Client(link, "dead").start()
    for start in range(0, 20_000, 1000):
        flat = [x for n in range(start, start + 1000) for x in (n, f"5\nc{n}")]
        await link.command(0, "HSET", "{im:0}:bs:dead", *flat)
    left, cursor, calls = 20_000, b"0", 0
    while left and calls < 400:
        _, left, cursor = await dead.reclaim(200, cursor)
        calls += 1
    assert left == 0
    # Whoever goes on with it begins at the beginning.
    assert await dead.reclaim() == (0, 0, b"0")


async def test_a_send_with_the_same_id_is_appended_once(link):
    server = await Client(link, "b1").start()
    await server.connect(1, await server.mint())
    args = (*RETENTION, "id1", 60000, "sender", "t", "hello", 1, "", server.slot, "c\nnobody")
    assert [await link.eval(load("send"), 0, *args) for _ in range(3)] == [1, 0, 0]
    assert await link.command(0, "XLEN", f"{{im:0}}:log:{server.slot}") == 1
    assert await link.command(0, "ZCARD", "{im:0}:pend:c") == 1
    channel = (*RETENTION, "id2", 60000, "sender", "t", "hello", "room")
    await link.eval(load("join"), 0, *RETENTION, server.slot, "c", "room")
    assert [await link.eval(load("send_chan"), 0, *channel) for _ in range(2)] == [1, 0]


async def test_entries_are_numbered_without_holes_and_ordered_whatever_the_clock_says(link):
    key = "{im:0}:last"
    await link.eval(load("send"), 0, *RETENTION, "a", 60000, "s", "t", "1", 0, "", 5, "c")
    # As if the clock had been an hour ahead.
    ms, n = (int(x) for x in (await link.command(0, "HGET", key, 5)).split(b"-"))
    ahead = f"{ms + 3_600_000}-{n + 1}"
    await link.command(0, "XADD", "{im:0}:log:5", ahead, "x", "y")
    await link.command(0, "HSET", key, 5, ahead)
    for number in range(3):
        await link.eval(load("send"), 0, *RETENTION, f"b{number}", 60000, "s", "t", "1", 0, "", 5, "c")
    ids = [entry[0] for entry in await link.command(0, "XRANGE", "{im:0}:log:5", "-", "+")]
    assert [int(i.partition(b"-")[2]) for i in ids] == [1, 2, 3, 4, 5]
    assert {i.partition(b"-")[0] for i in ids[1:]} == {b"%d" % (ms + 3_600_000)}


async def test_one_send_that_names_a_slot_twice_leaves_no_hole(link):
    client = Client(link, "b1")
    await link.eval(
        load("send"), 0, *RETENTION, "id", 60000, "s", "t", "hi", 0, "", client.slot, "a", 3, "b", client.slot, "c"
    )
    entries = await link.command(0, "XRANGE", f"{{im:0}}:log:{client.slot}", "-", "+")
    assert [entry_id.split(b"-")[1] for entry_id, _ in entries] == [b"1", b"2"]
    assert await link.command(0, "HGET", "{im:0}:last", client.slot) == entries[-1][0]
    await client.send(2)
    assert await link.command(0, "XLEN", f"{{im:0}}:log:{client.slot}") == 3


@pytest.mark.parametrize(("size", "count"), [(60_000, 40), (6_000, 300), (100, 6000)])
async def test_a_log_stays_within_its_bytes_whatever_the_size_of_its_entries(link, size, count):
    slot, limit = 5, 1 << 20
    for n in range(count):
        await link.eval(load("send"), 0, 10000, limit, 60000, f"m{n}", 60000, "s", "t", "x" * size, 0, "", slot, "c")
        if n % 50 == 0 or size > 50_000:
            assert await link.command(0, "MEMORY", "USAGE", f"{{im:0}}:log:{slot}", "SAMPLES", 0) <= limit
    assert await link.command(0, "XLEN", f"{{im:0}}:log:{slot}") * size > limit / 3


async def test_the_newest_entries_stay_whatever_their_size(link):
    """An accepted message must not vanish before anybody can have read it."""
    for n in range(10):
        await link.eval(load("send"), 0, 10000, 65536, 60000, f"m{n}", 60000, "s", "t", "x" * 60_000, 0, "", 5, "c")
        log = await link.command(0, "XRANGE", "{im:0}:log:5", "-", "+")
        assert [f[1] for _, f in log] == [b"m%d" % k for k in range(max(0, n - 3), n + 1)]


async def test_members_are_counted_by_channel_and_slot_and_forgotten_at_zero(link):
    clients = [await Client(link, "b1", f"c{n}").start() for n in range(20)]
    for n, client in enumerate(clients):
        await client.connect(n, await client.mint())
        for _ in range(2):
            assert await link.eval(load("join"), 0, *RETENTION, client.slot, client.client, "room") == 1
    assert await link.command(0, "HGET", "{im:0}:chans", "room") == b"20"
    counts = await link.command(0, "HGETALL", "{im:0}:cs:room")
    slots = [c.slot for c in clients]
    assert {int(s): int(c) for s, c in zip(counts[::2], counts[1::2], strict=True)} == {
        s: slots.count(s) for s in slots
    }
    for n, client in enumerate(clients):
        if n % 3 == 0:
            await client.close(n, grace=0)
        elif n % 3 == 1:
            await link.eval(load("leave"), 0, *RETENTION, client.slot, client.client, "room", "room")
        else:
            await link.eval(load("disconnect"), 0, *RETENTION, client.slot, client.client, "")
    for key in ("{im:0}:chans", "{im:0}:cs:room", "{im:0}:mb:room"):
        assert await link.command(0, "EXISTS", key) == 0, key


# Publishing.


async def publish(
    link: Link, instance: str, derived_from: bytes | str, highest: int = 0, kind: str = "self"
) -> list[Any]:
    reply: list[Any] = await link.eval(load("publish"), None, kind, kind, instance, derived_from, highest, "{}")
    return reply


async def take(link: Link, instance: str, kind: str = "self", ttl: int = 60000, adopt: int = 0) -> bool:
    return bool((await link.eval(load("publisher"), None, "take", kind, kind, instance, ttl, adopt))[0])


async def test_only_the_holder_publishes_and_only_upon_what_it_saw(link):
    assert await publish(link, "one", "") == [0, b"publisher"]
    assert await take(link, "one") and await take(link, "one") and not await take(link, "two")
    assert await publish(link, "two", "") == [0, b"publisher"]
    done, epoch = await publish(link, "one", "")
    assert done == 1
    assert await publish(link, "one", "") == [0, b"epoch", epoch]
    assert (await publish(link, "one", epoch))[0] == 1
    await link.eval(load("publisher"), None, "release", "self", "self", "two", 1, 0)
    assert not await take(link, "two"), "a stranger can't give it back"
    await link.eval(load("publisher"), None, "release", "self", "self", "one", 1, 0)
    assert await take(link, "two") and await publish(link, "one", epoch) == [0, b"publisher"]


async def test_an_epoch_is_above_redis_the_leases_and_the_clock(link):
    await take(link, "one")
    _, first = await publish(link, "one", "")
    seconds = int((await link.command(None, "TIME"))[0])
    assert int(first) > seconds - 5
    _, second = await publish(link, "one", first, highest=int(first) + 100)
    assert int(second) == int(first) + 101
    _, third = await publish(link, "one", second)
    assert int(third) == int(second) + 1
    await link.command(None, "DEL", "{im}:topo")
    _, after_a_wipe = await publish(link, "one", "", highest=int(third))
    assert int(after_a_wipe) > int(third)


async def test_a_term_ends_and_an_operators_prefix_stays_the_operators(link):
    assert await take(link, "one", ttl=50)
    await asyncio.sleep(0.1)
    assert await publish(link, "one", "") == [0, b"publisher"]
    assert await take(link, "op", "operator", ttl=50), "of `self` nothing is left"
    await asyncio.sleep(0.1)
    assert not await take(link, "one"), "an operator that is away is still the owner"
    assert await take(link, "one", adopt=1)


async def test_nobody_adopts_what_is_renewed(link):
    assert await take(link, "op", "operator")
    assert not await take(link, "one", adopt=1)
    await link.eval(load("publisher"), None, "release", "operator", "operator", "op", 1, 0)
    assert await take(link, "one", adopt=1)
    assert not await take(link, "op", "operator", adopt=1), "servers that elect their publisher have a right, too"


async def test_who_only_keeps_takes_nothing(link):
    async def keep(instance: str, kind: str = "self") -> list[Any]:
        reply: list[Any] = await link.eval(load("publisher"), None, "keep", kind, kind, instance, 60000, 1)
        return reply

    assert await keep("one") == [0, b"", b"", b""]
    assert await link.command(None, "EXISTS", "{im}:pub") == 0
    assert await take(link, "one", ttl=50)
    await asyncio.sleep(0.1)
    assert (await keep("op", "operator"))[0] == 0, "not even what has run out"
    assert await keep("one") == [1]
    assert (await keep("two"))[0] == 0, "another process of the same owner has it"


async def test_a_beat_tells_who_was_replaced_and_who_is_fenced(link):
    async def beat(boot: str, first: int = 0, restore: int = 0) -> list[Any]:
        reply: list[Any] = await link.eval(load("beat"), None, "s", boot, first, "{}", "", restore)
        return reply

    assert (await beat("one"))[0] == b"lost"
    assert (await beat("one", first=1))[0] == b"ok"
    assert (await beat("one", first=1))[3] == b"", "asked again after a lost reply"
    assert (await beat("two", first=1))[3] == b"one"
    assert (await beat("one"))[0] == (await beat("one", first=1))[0] == (await beat("one", restore=1))[0] == b"fenced"
    lease = (await beat("two"))[6][1]
    assert lease.startswith(b"two\n1\n"), lease
    assert await link.eval(load("fence"), None, "s", "two", 0) == 0, "it has moved since"
    assert await link.eval(load("fence"), None, "s", "two", 1) == 1
    assert await link.eval(load("fence"), None, "s", "two", 1) == 0
    assert (await beat("two", restore=1))[0] == b"fenced"
    await link.command(None, "DEL", "{im}:servers", "{im}:fenced")
    assert (await beat("two"))[0] == b"lost" and (await beat("two", restore=1))[0] == b"ok"
    assert await link.eval(load("part"), None, "s", "one") == 0 and await link.eval(load("part"), None, "s", "two") == 1
