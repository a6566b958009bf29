# Sends and events in all forms of the helper: the real one and the fake one, asyncio and blocking.
# The fixtures are those of test_helper_twin.

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest

import imhelper
from tests.integration.test_helper_twin import make_twin, shared_redis, twin
from tests.support.waiting import eventually

__all__ = ["make_twin", "shared_redis", "twin"]
pytestmark = pytest.mark.redis5


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


async def test_very_many_receivers_with_receipts_are_one_message_however_it_is_repeated(twin):
    names = [f"client-{i}" for i in range(1100)]
    for receivers in (names, names[::-1], names[700:703]):
        await twin("send_message", "ann", receivers, "hello", True, idempotency_key="k")
    [(sender, receivers, chan, message)] = twin.sent()
    assert (sender, chan, message) == ("ann", None, "hello")
    assert sorted(receivers) == sorted(names)
    if twin.boot is None:
        assert twin.helper.sent[0].receipt


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
    twin.helper.on_send += [told.append]
    await twin("send_message", "ann", "bob", "one more")
    twin.helper.on_send = []
    await twin("send_message", "ann", "bob", "unheard")
    assert [event.message for event in told[4:]] == ["one more"]


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


async def test_closing_the_helper_ends_its_subscriptions(twin):
    events, online, offline = recorder()
    subscriptions = [await twin("event_bus", online, offline, group=group) for group in (None, "g")]
    assert not any(s.closed for s in subscriptions)
    await twin.close(twin.helper)
    assert all(s.closed for s in subscriptions)
    await twin.connect("ann")
    await asyncio.sleep(0.05)
    assert events == []


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
