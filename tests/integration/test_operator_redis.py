# The operator's way to Redis on real servers: whose a prefix is, and that an end removes what is its own and no more.
# What an ImCluster may take over and remove is decided by the publisher's lease.

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import imoperator.redis
from imhelper.core.topology import ServerEntry, Topology
from imoperator.ending import Ending
from imoperator.model import Cluster, RedisView, Seen
from imoperator.names import Key
from imoperator.redis import Access, Redis, Taken
from imoperator.spec import parse_spec

Operate = Callable[..., Redis]


@pytest.fixture
async def operate(redis_server) -> AsyncIterator[Operate]:
    """The operator's link for the ImCluster of a uid."""
    made: list[Redis] = []

    def start(uid: str, instance: str = "a process") -> Redis:
        made.append(Redis(Access(redis_server.url, "im"), uid, instance))
        return made[-1]

    yield start
    for redis in made:
        await redis.close()


async def published(redis: Redis) -> Topology:
    """Own the prefix and have a topology on it."""
    assert await redis.hold()
    new = Topology(0, 128, 1, (ServerEntry("chat-0", "ws://a/ws"),), (0,) * 128)
    found = await redis.publish(new, await redis.view([], 5.0))
    assert found is not None
    return found


async def test_a_prefix_is_not_adopted_from_a_living_owner(operate):
    living, newcomer = operate("living"), operate("newcomer")
    await published(living)
    with pytest.raises(Taken, match="whose right has not run out"):
        await newcomer.hold(adopt=True)
    await living.release()
    with pytest.raises(Taken, match="adopt-prefix=true"):
        await newcomer.hold()
    assert await newcomer.hold(adopt=True)
    with pytest.raises(Taken):
        await operate("living", "a later process").hold()


async def test_an_end_takes_no_prefix(operate, redis_server):
    gone, ending = operate("gone"), operate("ending")
    with pytest.raises(Taken, match="nobody"):
        await ending.hold(only_keep=True)
    await published(gone)
    await gone.release()
    with pytest.raises(Taken):
        await ending.hold(adopt=True, only_keep=True)
    with pytest.raises(Taken):
        await ending.wipe()
    assert redis_server.command("EXISTS", "{im}:topo", "{im}:pub") == 2


async def test_an_end_removes_all_that_is_its_own_and_nothing_else(operate, redis_server):
    redis = operate("uid")
    await published(redis)
    for name in ("{im:0}:log:1", "{im:0}:a", "{im}:servers", "other", "{imx}:pub", "im:a"):
        redis_server.command("SET", name, "1")
    assert await redis.wipe() == 5
    assert set(redis_server.command("KEYS", "*")) == {b"other", b"{imx}:pub", b"im:a"}


async def test_the_right_is_asked_for_before_each_batch(operate, redis_server, monkeypatch):
    """Somebody takes the prefix over in the middle: what is there then is left."""
    monkeypatch.setattr(imoperator.redis, "SCAN_COUNT", 10)
    redis, other = operate("uid"), operate("other")
    await published(redis)
    for number in range(200):
        redis_server.command("SET", f"{{im:0}}:{number}", "1")
    send, batches = redis.link.command, 0

    async def command(group: int | None, *words: Any) -> Any:
        nonlocal batches
        reply = await send(group, *words)
        batches += words[0] == "UNLINK"
        if batches == 1 and words[0] == "UNLINK":
            await redis.release()
            assert await other.hold(adopt=True)
        return reply

    monkeypatch.setattr(redis.link, "command", command)
    with pytest.raises(Taken, match="uid other"):
        await redis.wipe()
    assert batches == 1
    assert redis_server.command("DBSIZE") > 150
    assert redis_server.command("HGET", "{im}:pub", "uid") == b"other"


class FakeApi:
    """Notes what the end of an ImCluster does."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def child(self, *_: object) -> None:
        return None

    async def set_finalizer(self, _: Key, __: str, present: bool) -> None:
        assert not present
        self.done.append("let go")

    async def tell(self, _: Cluster, reason: str, __: str, *, warning: bool) -> None:
        self.done.append(reason)


async def test_an_end_whose_right_is_lost_meanwhile_is_an_end_all_the_same(operate, redis_server):
    redis, other, api = operate("uid"), operate("other"), FakeApi()
    await published(redis)
    view = RedisView(None, {})
    await redis.release()
    assert await other.hold(adopt=True)
    cluster = Cluster(
        Key("ns", "chat"), "uid", 1, parse_spec({"redis": {"url": "redis://r"}}), deleting_at=0.0, has_finalizer=True
    )
    ending = Ending(api)  # type: ignore[arg-type]
    assert not await ending.step(cluster, Seen(0.0), view, redis, foreign=False)
    assert await ending.step(cluster, Seen(20.0), view, redis, foreign=False)
    assert api.done == ["KeysLeft", "let go"]
    assert redis_server.command("HGET", "{im}:pub", "uid") == b"other"
