# One suite for the helper in all its forms: the real one and the fake one, asyncio and blocking.
# The real one meets servers made of scripts only (`Boot`), so that this needs a Redis and no imserver.

import asyncio
import inspect
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import imhelper
import imhelper.sync
import imhelper.testing
import imhelper.testing.sync
from imhelper import core
from imhelper.core.slots import slot_of
from tests.support.boot import Boot
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis5
FLAVOURS = [f.strip() for f in os.environ.get("IM_TEST_REDIS", "valkey,redis7").split(",") if f.strip()]
ODD_IDS = ["a:b", "{x}", "}{", "*", "a?[b]", "it's", '"q"', "back\\slash", "é😀", " ", "%s", "a b", "x" * 128]


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
        (("prev_connect_server", "ok"), {"avoid": 7}),
        (("event_bus", None, print), {}),
        (("event_bus", print, "print"), {"group": "g"}),
    ],
)
async def test_other_bad_arguments_are_refused(twin, call, options):
    with pytest.raises(imhelper.SettingError) as caught:
        await twin(*call, **options)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, imhelper.ImError)


@pytest.mark.parametrize(
    "options",
    [
        *({"prefix": "a{b"}, {"prefix": ""}, {"token_ttl": 0}, {"token_ttl": 3601}, {"timeout": 0}, {"timeout": "5"}),
        *({"username": 7}, {"password": b"x"}),
    ],
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


async def test_the_fake_counts_the_sockets_of_each_server():
    helper = imhelper.testing.FakeImHelper(servers=["a", "b"])
    for client in ("ann", "ann", "bob"):
        await helper.connect(client)
    topology = await helper.topology()
    expected = dict.fromkeys(("a", "b"), 0)
    for client in ("ann", "ann", "bob"):
        owner = topology.server_of(client)
        assert owner is not None
        expected[owner.name] += 1
    assert {s.name: s.connections for s in await helper.servers()} == expected
    assert sum(expected.values()) == 3


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
    assert all(error.value.__cause__ is not None for error in (caught, keyless))
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


async def test_a_redis_that_never_answered_is_told_with_what_a_retry_needs_too(make_twin, shared_redis):
    twin = make_twin(timeout=0.4)
    if shared_redis is None:
        twin.helper.available = False
    else:
        shared_redis.freeze()
    try:
        with pytest.raises(imhelper.RedisUnavailableError) as caught:
            await twin("send_message", "ann", ["bob", "cat", "bob"], "m", idempotency_key="k")
        with pytest.raises(imhelper.RedisUnavailableError) as keyless:
            await twin("send_chan_message", "ann", "news", "m")
        with pytest.raises(imhelper.MessageError):
            await twin("send_message", "ann", "bob", float("nan"))
    finally:
        if shared_redis is None:
            twin.helper.available = True
        else:
            shared_redis.thaw()
    assert caught.value.idempotency_key == "k" and caught.value.uncovered == ("bob", "cat")
    assert keyless.value.idempotency_key and keyless.value.uncovered == ("news",)

    async def repeated() -> Any:
        try:
            return await twin("send_message", "ann", ["bob", "cat"], "m", idempotency_key="k")
        except imhelper.RedisUnavailableError:
            return None

    assert await eventually(repeated) == caught.value.message_id


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
    made = [inspect.signature(form).parameters for form in forms]
    assert made[0] == made[1] and made[2] == made[3]
    # Code that makes a helper can make the fake with the same arguments.
    assert set(made[2]) - set(made[0]) == {"servers"} and set(made[0]) < set(made[2])
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
