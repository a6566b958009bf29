# One suite for the helper in all its forms: the real one and the fake one, asyncio and blocking.
# The real one meets servers made of scripts only (`Boot`), so that this needs a Redis and no imserver.

import asyncio
import contextlib
import inspect
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import imhelper
import imhelper.sync
import imhelper.testing
import imhelper.testing.sync
from imhelper import core
from imhelper._backend.blocking import Link
from imhelper.core import keys
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.scripts import load
from imhelper.core.slots import group_of, slot_of
from imhelper.core.tokens import slot_of_token
from imhelper.core.topology import Limits, ServerEntry, Topology
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis5
FLAVOURS = [f.strip() for f in os.environ.get("IM_TEST_REDIS", "valkey,redis7").split(",") if f.strip()]
LIMITS = Limits(lease_seconds=3600)
ODD_IDS = ["a:b", "{x}", "}{", "*", "a?[b]", "it's", '"q"', "back\\slash", "é😀", " ", "%s", "a b", "x" * 128]


class Boot:
    """A server that exists in Redis only: a lease, a place in the topology, and sockets without a socket."""

    def __init__(self, url: str, prefix: str, name: str = "s0", limits: Limits = LIMITS, **report: Any) -> None:
        self.link = Link(parse_redis_url(url), prefix=prefix, timeout=10)
        self.link.ready()
        self.prefix, self.name, self.boot = prefix, name, secrets.token_hex(4)
        self.limits, self.sockets = limits, 0
        self.groups, self.slots = self.link.groups, 128
        self.url = f"ws://{name}.test/ws"
        for group in range(self.groups):
            self.link.eval(load("boot"), group, self.boot)
        self.beat(first=True, **report)

    def beat(self, first: bool = False, **report: Any) -> None:
        text = json.dumps({"url": self.url, "state": "active", "connections": self.sockets, **report})
        reply = self.link.eval(load("beat"), None, self.name, self.boot, int(first), text, "", 0)
        assert reply[0] == b"ok", reply

    def publish(self, *servers: ServerEntry) -> None:
        entries = servers or (ServerEntry(self.name, self.url),)
        taken = self.link.eval(load("publisher"), None, "take", "self", "u", "i", 60_000, 0)
        assert taken[0] == 1, taken
        current = self.link.command(None, "HGET", keys.topology(self.prefix), "epoch") or b""
        table = tuple(slot % len(entries) for slot in range(self.slots))
        record = Topology(0, self.slots, self.groups, entries, table, self.limits).to_json()
        reply = self.link.eval(load("publish"), None, "self", "u", "i", current, 0, record)
        assert reply[0] == 1, reply

    def connect(self, url: str) -> str:
        """What a handshake with this URL records; the client's id, or what the script said instead."""
        token = url.partition("token=")[2]
        slot = slot_of_token(token, self.slots)
        assert slot is not None
        self.sockets += 1
        limits = self.limits
        reply = self.link.eval(
            load("connect"),
            group_of(slot, self.groups),
            *(self.boot, self.sockets, token, slot, "p", "", "", limits.max_sockets_per_client),
            *(limits.retain_entries, limits.retain_bytes, int(limits.retain_seconds * 1000)),
        )
        told: bytes = reply[1] if reply[0] == b"ok" else reply[0]
        return told.decode()

    def log(self, slot: int) -> list[dict[bytes, bytes]]:
        group = group_of(slot, self.groups)
        entries = self.link.command(group, "XRANGE", keys.log(keys.group_tag(self.prefix, group), slot), "-", "+")
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]

    def sent(self) -> list[tuple[str, tuple[str, ...], str | None, Any]]:
        """Messages in the logs as (sender, receivers, chan, message), once an id."""
        found: dict[bytes, Any] = {}
        for entry in (e for slot in range(self.slots) for e in self.log(slot)):
            kind = b"m" if b"m" in entry else b"c"
            if b"p" not in entry or b"f" not in entry or (b"r" in entry and kind == b"c"):
                continue
            payload = entry[b"p"]
            letter = entry[b"t"]
            message: Any = payload if letter == b"b" else json.loads(payload) if letter == b"j" else payload.decode()
            names = tuple(entry[b"c"].decode().split("\n")) if kind == b"m" else ()
            chan = entry[b"h"].decode() if b"h" in entry else None
            before = found.get(entry[kind])
            found[entry[kind]] = (entry[b"f"].decode(), (*(before[1] if before else ()), *names), chan, message)
        return list(found.values())


class Twin:
    """One form of the helper under test. Every call is awaited; the blocking form runs in a thread."""

    def __init__(self, helper: Any, blocking: bool, boot: Boot | None) -> None:
        self.helper, self.blocking, self.boot = helper, blocking, boot

    async def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        method = getattr(self.helper, name)
        if self.blocking:
            return await asyncio.to_thread(method, *args, **options)
        return await method(*args, **options)

    async def streamed(self, name: str, *args: Any) -> list[Any]:
        if self.blocking:
            return await asyncio.to_thread(lambda: list(getattr(self.helper, name)(*args)))
        return [item async for item in getattr(self.helper, name)(*args)]

    async def close(self, thing: Any) -> None:
        await (asyncio.to_thread(thing.close) if self.blocking else thing.close())

    async def connect(self, client_id: str, metadata: str = "") -> None:
        """Bring a socket of a client online."""
        if self.boot is None:
            self.helper.connect(client_id, metadata)
        else:
            assert self.boot.connect(await self("prev_connect_server", client_id, metadata)) == client_id

    def sent(self) -> list[tuple[str, tuple[str, ...], str | None, Any]]:
        if self.boot is not None:
            return self.boot.sent()
        return [(m.sender, m.receivers if m.chan is None else (), m.chan, m.message) for m in self.helper.sent]


@pytest.fixture(scope="module", params=["fake", *FLAVOURS])
def shared_redis(request, tmp_path_factory) -> Iterator[RedisServer | None]:
    """A Redis for the whole module (each test has a prefix of its own), or None for the fake."""
    if request.param == "fake":
        yield None
        return
    folder: Path = tmp_path_factory.mktemp("redis")
    server = RedisServer(request.param, folder)
    try:
        server.start()
        yield server
    finally:
        server.dispose()


@pytest.fixture(params=["asyncio", "blocking"])
async def make_twin(request, shared_redis: RedisServer | None):
    """A function that makes a helper, with a cluster of one server unless `boot=False`."""
    blocking = request.param == "blocking"
    made: list[Twin] = []

    def make(*, boot: bool = True, **options: Any) -> Twin:
        options.setdefault("prefix", f"p{secrets.token_hex(4)}")
        if shared_redis is None:
            module: Any = imhelper.testing.sync if blocking else imhelper.testing
            made.append(Twin(module.FakeImHelper(**options), blocking, None))
        else:
            server = Boot(shared_redis.url, options["prefix"]) if boot else None
            if server is not None:
                server.publish()
            module = imhelper.sync if blocking else imhelper
            made.append(Twin(module.ImHelper(shared_redis.url, **options), blocking, server))
        return made[-1]

    yield make
    for twin in made:
        await twin.close(twin.helper)
        if twin.boot is not None:
            twin.boot.link.close()


@pytest.fixture
def twin(make_twin) -> Twin:
    made: Twin = make_twin()
    return made


# -- connecting -----------------------------------------------------------------------------------------------------


async def test_prev_connect_server_gives_a_url_with_a_random_token(twin):
    urls = [await twin("prev_connect_server", "ann", "meta") for _ in range(20)]
    assert all(re.fullmatch(r"ws://[\w.-]+/ws\?token=[0-9a-f]{1,3}\.[\w-]{24}", url) for url in urls), urls
    assert len(set(urls)) == 20
    assert await twin("prev_connect_server", "ann", avoid="another-server") != urls[0]


async def test_the_only_server_is_given_even_if_it_is_to_be_avoided(twin):
    [server] = await twin("servers")
    for avoid in (server.name, server.url, f"{server.url}?token=x"):
        assert (await twin("prev_connect_server", "ann", avoid=avoid)).startswith(server.url)


@pytest.mark.parametrize("client_id", ODD_IDS)
async def test_odd_ids_are_ids_like_any_other(twin, client_id):
    await twin.connect(client_id)
    await twin.connect("neighbour")
    chan = client_id[::-1]
    assert await twin("has_online", client_id)
    assert await twin("join_chan", client_id, chan)
    assert sorted(await twin("get_client_list_by_online")) == sorted({client_id, "neighbour"})
    assert await twin("get_chan_list") == [(chan, 1)]
    assert await twin("get_chan_client_list", chan) == [client_id]
    assert await twin("get_chan_list_by_client_id", client_id) == [chan]
    await twin("send_message", client_id, ["neighbour", client_id + "?"[: 128 - len(client_id.encode())]], client_id)
    await twin("send_chan_message", client_id, chan, client_id)
    assert [(m[0], m[2], m[3]) for m in twin.sent()].count((client_id, chan, client_id)) == 1
    assert await twin("leave_chan", client_id, chan) == 1
    assert await twin("disconnect", client_id) == 1
    assert await twin("get_client_list_by_online") == ["neighbour"]


BAD_IDS = ["", "x" * 129, "é" * 65, "a\nb", "a\x00", "\x7f", "\x85", "\ud800", 7, None, b"bytes"]
ID_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("prev_connect_server", ("BAD",)),
    ("send_message", ("BAD", "ok", "m")),
    ("send_message", ("ok", "BAD", "m")),
    ("send_message", ("ok", ["ok", "BAD"], "m")),
    ("send_chan_message", ("BAD", "ok", "m")),
    ("send_chan_message", ("ok", "BAD", "m")),
    ("has_online", ("BAD",)),
    ("has_online_many", (["ok", "BAD"],)),
    ("join_chan", ("BAD", "ok")),
    ("join_chan", ("ok", "BAD")),
    ("leave_chan", ("BAD", "ok")),
    ("leave_chan", ("ok", "ok", "BAD")),
    ("get_chan_client_list", ("BAD",)),
    ("clear_chan_client", ("BAD",)),
    ("get_chan_list_by_client_id", ("BAD",)),
    ("get_chan_online", ("BAD",)),
    ("disconnect", ("BAD",)),
]


async def test_bad_ids_are_refused_everywhere_before_anything_happens(twin):
    await twin.connect("ok")
    for name, args in ID_CALLS:
        for bad in BAD_IDS:
            if name == "send_message" and args[1] == "BAD" and not isinstance(bad, str):
                continue
            given = [[bad if x == "BAD" else x for x in a] if isinstance(a, list) else a for a in args]
            with pytest.raises(imhelper.InvalidIdError) as caught:
                await twin(name, *(bad if a == "BAD" else a for a in given))
            assert isinstance(caught.value, ValueError) and isinstance(caught.value, imhelper.ImError)
    for receivers in (None, 7, b"bytes", [b"bytes"]):
        with pytest.raises(imhelper.InvalidIdError):
            await twin("send_message", "ok", receivers, "m")
    assert twin.sent() == [] and await twin("get_chan_list") == []


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (("prev_connect_server", "ok", "x" * 4097), {}),
        (("prev_connect_server", "ok", 7), {}),
        (("prev_connect_server", "ok", "\ud800"), {}),
        (("disconnect", "ok", "x" * 124), {}),
        (("disconnect", "ok", None), {}),
        (("send_message", "ok", "ok", "m"), {"idempotency_key": ""}),
        (("send_message", "ok", "ok", "m"), {"idempotency_key": 7}),
        (("send_chan_message", "ok", "ok", "m"), {"idempotency_key": "x" * 257}),
    ],
)
async def test_other_bad_arguments_are_refused(twin, call, options):
    with pytest.raises(imhelper.SettingError) as caught:
        await twin(*call, **options)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, imhelper.ImError)


@pytest.mark.parametrize(
    "options",
    [{"prefix": "a{b"}, {"prefix": ""}, {"token_ttl": 0}, {"token_ttl": 3601}, {"timeout": 0}, {"timeout": "5"}],
)
def test_bad_settings_are_refused_at_once(make_twin, options):
    with pytest.raises(ValueError):
        make_twin(boot=False, **options)


# -- presence -------------------------------------------------------------------------------------------------------


async def test_presence(twin):
    assert await twin("has_online", "ann") is False
    assert (await twin("get_online_count"), await twin("get_client_list_by_online")) == (0, [])
    await twin.connect("ann")
    await twin.connect("ann")
    await twin.connect("bob")
    assert await twin("has_online", "ann") is True
    many = await twin("has_online_many", ["bob", "cat", "ann", "bob"])
    assert many == {"bob": True, "cat": False, "ann": True} and list(many) == ["bob", "cat", "ann"]
    assert await twin("has_online_many", []) == {}
    assert sorted(await twin("get_client_list_by_online")) == ["ann", "bob"]
    assert sorted(await twin.streamed("iter_online")) == ["ann", "bob"]
    assert await twin("get_online_count") == 2


async def test_disconnect_ends_all_sockets_and_memberships_at_once(twin):
    await twin.connect("ann")
    await twin.connect("ann")
    await twin("join_chan", "ann", "c")
    assert await twin("disconnect", "ann", "bye") == 2
    assert await twin("has_online", "ann") is False
    assert await twin("get_chan_online", "c") == 0
    assert await twin("get_chan_list_by_client_id", "ann") == []
    assert await twin("disconnect", "ann") == 0
    assert await twin("disconnect", "never-seen", "x" * 123) == 0


# -- channels -------------------------------------------------------------------------------------------------------


async def test_channels(twin):
    assert await twin("join_chan", "ann", "news") is False
    assert (await twin("get_chan_list"), await twin("get_chan_client_list", "news")) == ([], [])
    for name in ("ann", "bob", "cat"):
        await twin.connect(name)
        assert await twin("join_chan", name, "news") is True
    assert await twin("join_chan", "ann", "news") is True
    assert await twin("join_chan", "ann", "alpha") is True
    listed = await twin("get_chan_list")
    assert listed == [("alpha", 1), ("news", 3)] and listed[1].chan == "news" and listed[1].online == 3
    assert sorted(await twin("get_chan_client_list", "news")) == ["ann", "bob", "cat"]
    assert sorted(await twin.streamed("iter_chan", "news")) == ["ann", "bob", "cat"]
    assert await twin("get_chan_list_by_client_id", "ann") == ["alpha", "news"]
    assert (await twin("get_chan_online", "news"), await twin("get_chan_online", "none")) == (3, 0)
    assert await twin("leave_chan", "ann", "news", "alpha", "news", "none") == 2
    assert await twin("leave_chan", "ann", "news") == 0
    assert await twin("leave_chan", "ann") == 0
    assert await twin("get_chan_list") == [("news", 2)]
    assert await twin("clear_chan_client", "news") == 2
    assert await twin("clear_chan_client", "news") == 0
    assert await twin("get_chan_list") == []


async def test_a_large_channel_is_listed_and_cleared(twin):
    names = [f"client-{i}" for i in range(300)]
    for name in names:
        await twin.connect(name)
        await twin("join_chan", name, "big")
    assert sorted(await twin("get_chan_client_list", "big")) == sorted(names)
    assert await twin("clear_chan_client", "big") == 300
    assert await twin("get_chan_online", "big") == 0


# -- sends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", ["", "text", "zwölf 😀", b"", b"\x00\xff", {"a": [1, None, "ü"]}, [], 7, 1.5, None, True, "x" * 65536]
)
async def test_messages_arrive_as_they_were_given(twin, message):
    message_id = await twin("send_message", "ann", "bob", message)
    assert re.fullmatch(r"[\w-]{22}", message_id)
    assert twin.sent() == [("ann", ("bob",), None, message)]


async def test_many_receivers_each_once(twin):
    names = [f"client-{i}" for i in range(500)]
    await twin("send_message", "ann", (n for n in [*names, *names[:50]]), "hello")
    [(sender, receivers, chan, message)] = twin.sent()
    assert (sender, chan, message) == ("ann", None, "hello")
    assert sorted(receivers) == sorted(names)


async def test_no_receivers_is_no_message(twin):
    assert await twin("send_message", "ann", [], "hello")
    assert twin.sent() == []


@pytest.mark.parametrize(
    "message",
    [
        float("nan"),
        {"x": float("inf")},
        "\ud800",
        {"x": "\ud800"},
        object(),
        {1, 2},
        "x" * 65537,
        b"x" * 65537,
        "é" * 32769,
    ],
)
async def test_bad_messages_are_refused_before_anything_is_sent(twin, message):
    for call in (("send_message", "ann", "bob"), ("send_chan_message", "ann", "news")):
        with pytest.raises(imhelper.MessageError):
            await twin(*call, message)
    assert twin.sent() == []


async def test_a_repeated_key_gives_the_same_id_and_one_message(twin):
    ids = {await twin("send_message", "ann", ["bob", "cat"], "m", idempotency_key="k") for _ in range(3)}
    assert len(ids) == 1 and len(twin.sent()) == 1
    assert await twin("send_message", "eve", "bob", "m", idempotency_key="k") not in ids
    assert await twin("send_message", "ann", "bob", "m", idempotency_key="k2") not in ids
    assert await twin("send_message", "ann", "bob", "m") != await twin("send_message", "ann", "bob", "m")
    assert len(twin.sent()) == 5


async def test_a_channel_message_goes_to_a_channel_with_members(twin):
    await twin.connect("ann")
    await twin("join_chan", "ann", "news")
    ids = {await twin("send_chan_message", "bob", "news", {"n": 1}, idempotency_key="k") for _ in range(2)}
    assert len(ids) == 1
    assert twin.sent() == [("bob", (), "news", {"n": 1})]


async def test_hooks_are_told_and_can_stop_a_send(twin):
    told: list[imhelper.SendEvent] = []

    async def in_a_coroutine(event: imhelper.SendEvent) -> None:
        await asyncio.sleep(0)
        told.append(event)

    def refuse(event: imhelper.SendEvent) -> None:
        if event.message == "forbidden":
            raise PermissionError("not this")

    twin.helper.on_send.append(refuse)
    twin.helper.on_send.append(told.append)
    twin.helper.on_send.append(in_a_coroutine)
    [server] = await twin("servers")
    await twin("send_message", "ann", ["bob", "cat", "bob"], {"x": 1})
    await twin("send_chan_message", "ann", "news", "m")
    assert [(e.sender, e.receivers, e.chan, e.message, e.servers) for e in told[::2]] == [
        ("ann", ("bob", "cat"), None, {"x": 1}, (server.name,)),
        ("ann", (), "news", "m", (server.name,)),
    ]
    assert told[::2] == told[1::2]
    before = len(twin.sent())
    for call in (("send_message", "ann", "bob"), ("send_chan_message", "ann", "news")):
        with pytest.raises(PermissionError, match="not this"):
            await twin(*call, "forbidden")
    assert len(twin.sent()) == before and len(told) == 4
    twin.helper.on_send.clear()
    await twin("send_message", "ann", "bob", "forbidden")


# -- events ---------------------------------------------------------------------------------------------------------


def recorder() -> tuple[list[tuple[str, str, str]], Callable[[str, str], None], Callable[[str, str], None]]:
    events: list[tuple[str, str, str]] = []
    return events, lambda c, m: events.append(("on", c, m)), lambda c, m: events.append(("off", c, m))


@pytest.mark.parametrize("group", [None, "workers"])
async def test_events_reach_a_subscriber_with_metadata(twin, group):
    await twin.connect("earlier")
    events, online, offline = recorder()
    subscription = await twin("event_bus", online, offline, group=group)
    await twin.connect("ann", "first")
    # Which socket came last is known by the millisecond.
    await asyncio.sleep(0.005)
    await twin.connect("ann", "second")
    await twin("disconnect", "ann")
    await eventually(lambda: len(events) == 2)
    await twin.close(subscription)
    await twin.close(subscription)
    await twin.connect("late")
    await asyncio.sleep(0.1)
    assert events == [("on", "ann", "first"), ("off", "ann", "second")]


async def test_callbacks_may_be_coroutines_and_may_fail(twin):
    events, online, _ = recorder()

    async def slow_online(client_id: str, metadata: str) -> None:
        await asyncio.sleep(0.01)
        online(client_id, metadata)
        if client_id == "bad":
            raise RuntimeError("callback of the test")

    subscription = await twin("event_bus", slow_online, lambda c, m: None)
    for name in ("one", "bad", "two"):
        await twin.connect(name)
    await eventually(lambda: len(events) == 3)
    await twin.close(subscription)
    assert [e[1] for e in events] == ["one", "bad", "two"]


async def test_every_subscriber_gets_every_event_and_a_group_shares_them(twin):
    names = [f"client-{i}" for i in range(40)]
    records = [recorder() for _ in range(4)]
    groups = [None, None, "g", "g"]
    subscriptions = [
        await twin("event_bus", online, offline, group=group)
        for (_, online, offline), group in zip(records, groups, strict=True)
    ]
    for name in names:
        await twin.connect(name, name)
    lists = [record[0] for record in records]
    await eventually(lambda: len(lists[0]) == len(lists[1]) == len(lists[2]) + len(lists[3]) == 40)
    for subscription in subscriptions:
        await twin.close(subscription)
    assert lists[0] == lists[1] == [("on", n, n) for n in names]
    assert sorted(e[1] for e in lists[2] + lists[3]) == sorted(names)


async def test_a_group_goes_on_where_it_ended(twin):
    events, online, offline = recorder()
    await twin.close(await twin("event_bus", online, offline, group="g"))
    await twin.connect("meanwhile")
    subscription = await twin("event_bus", online, offline, group="g")
    await eventually(lambda: events == [("on", "meanwhile", "")])
    await twin.close(subscription)


async def test_a_subscription_may_be_closed_by_its_own_callback(twin):
    done: list[str] = []

    if twin.blocking:

        def online(client_id: str, metadata: str) -> None:
            subscription.close()
            done.append(client_id)
    else:

        async def online(client_id: str, metadata: str) -> None:  # type: ignore[misc]
            await subscription.close()
            done.append(client_id)

    subscription = await twin("event_bus", online, lambda c, m: None)
    await twin.connect("ann")
    await twin.connect("bob")
    await eventually(lambda: done)
    await twin.close(subscription)
    assert done == ["ann"]


async def test_a_subscription_is_a_context_manager(twin):
    events, online, offline = recorder()
    subscription = await twin("event_bus", online, offline)
    with contextlib.ExitStack() as stack:
        if twin.blocking:
            await asyncio.to_thread(stack.enter_context, subscription)
            await twin.connect("ann")
            await eventually(lambda: events)
            await asyncio.to_thread(stack.close)
        else:
            async with subscription:
                await twin.connect("ann")
                await eventually(lambda: events)
    await twin.connect("bob")
    await asyncio.sleep(0.05)
    assert events == [("on", "ann", "")]


@pytest.mark.parametrize("group", ["", "x" * 129, "a\nb", 7])
async def test_a_bad_group_is_refused(twin, group):
    with pytest.raises(imhelper.InvalidIdError, match="group"):
        await twin("event_bus", print, print, group=group)


# -- the cluster, and its absence -----------------------------------------------------------------------------------


async def test_topology_and_servers(twin):
    topology = await twin("topology")
    [server] = await twin("servers")
    assert isinstance(topology, imhelper.Topology) and topology.slots == 128
    assert [(s.name, s.url, s.state) for s in topology.servers] == [(server.name, server.url, "active")]
    assert server.state == "active" and server.connections == 0 and server.lease_age >= 0
    owner = topology.server_of("ann")
    assert owner is not None and owner.name == server.name
    assert slot_of("ann", topology.slots) == core.slots.slot_of(b"ann", 128)


async def test_unavailable_redis_is_told_with_what_a_retry_needs(make_twin, shared_redis):
    twin = make_twin(timeout=0.4)
    await twin("send_message", "ann", "bob", "before")
    if shared_redis is None:
        twin.helper.available = False
    else:
        shared_redis.freeze()
    try:
        with pytest.raises(imhelper.RedisUnavailableError):
            await twin("has_online", "ann")
        with pytest.raises(imhelper.RedisUnavailableError) as caught:
            await twin("send_message", "ann", ["bob", "cat"], "m", idempotency_key="k")
        with pytest.raises(imhelper.RedisUnavailableError) as keyless:
            await twin("send_chan_message", "ann", "news", "m")
    finally:
        if shared_redis is None:
            twin.helper.available = True
        else:
            shared_redis.thaw()
    assert caught.value.idempotency_key == "k" and sorted(caught.value.uncovered) == ["bob", "cat"]
    assert keyless.value.idempotency_key and keyless.value.uncovered == ("news",)

    async def repeated() -> Any:
        try:
            return await twin("send_message", "ann", ["bob", "cat"], "m", idempotency_key="k")
        except imhelper.RedisUnavailableError:
            return None

    assert await eventually(repeated) == caught.value.message_id
    [(sender, receivers, _, _)] = [m for m in twin.sent() if m[3] == "m" and m[2] is None]
    assert (sender, sorted(receivers)) == ("ann", ["bob", "cat"])


async def test_a_context_manager_and_its_repr(make_twin, shared_redis):
    twin = make_twin()
    if twin.blocking:
        with twin.helper as helper:
            assert helper is twin.helper
            await twin("get_online_count")
    else:
        async with twin.helper as helper:
            assert helper is twin.helper
            await twin("get_online_count")
    assert twin.helper._link.prefix in repr(twin.helper)
    # Closing is not the end: the next call connects again.
    assert await twin("get_online_count") == 0


def test_both_forms_have_the_same_surface():
    forms = [
        imhelper.ImHelper,
        imhelper.sync.ImHelper,
        imhelper.testing.FakeImHelper,
        imhelper.testing.sync.FakeImHelper,
    ]
    public = [{n for n in dir(form) if not n.startswith("_")} for form in forms]
    assert public[0] == public[1] and public[2] == public[3]
    assert public[2] - public[0] == {"connect", "sent", "available"}
    for name in public[0]:
        signatures = [
            [(p.name, p.default, p.kind) for p in inspect.signature(getattr(form, name)).parameters.values()]
            for form in forms
            if callable(getattr(form, name))
        ]
        assert all(s == signatures[0] for s in signatures), name
