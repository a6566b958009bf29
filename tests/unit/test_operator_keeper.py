# What the keeper does with a spec that it can't read, and whose turn it is when Redis is away. The API is in memory.

from dataclasses import replace
from typing import Any

import pytest

from imoperator import keeper as keepers
from imoperator.children import owned
from imoperator.ending import Ending
from imoperator.keeper import Keeper
from imoperator.metrics import Metrics
from imoperator.model import Cluster, Defaults, Pod, RedisView, Ref, Seen, Workload
from imoperator.names import CAUSE_OTHER, FINALIZER, Key
from imoperator.observe import read_cluster
from imoperator.redis import Taken
from imoperator.rollout import Plan
from imoperator.spec import parse_spec
from imoperator.turn import Turn
from imoperator.workload import digest, pod_template, statefulset

KEY, OTHER = Key("ns", "chat"), Key("ns", "other")
UNREADABLE = {"redis": {"url": "redis://r"}, "replicas": "many"}


class FakeApi:
    """Holds one ImCluster and notes what is written."""

    def __init__(self, **metadata: Any) -> None:
        head = {"namespace": "ns", "name": "chat", "uid": "uid", "generation": 3} | metadata
        self.manifest: dict[str, Any] | None = {"metadata": head, "spec": UNREADABLE, "status": {}}
        self.events: list[str] = []
        self.live: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[bool] = []

    async def cluster(self, _: Key) -> dict[str, Any] | None:
        return self.manifest

    async def children(self, _: Key, *, routes: bool) -> dict[tuple[str, str], dict[str, Any]]:
        self.asked.append(routes)
        return self.live if routes else {}

    async def child(self, kind: str, _: Key, name: str) -> dict[str, Any] | None:
        return self.live.get((kind, name))

    async def remove(self, kind: str, _: Key, name: str) -> None:
        del self.live[kind, name]

    async def pods(self, *_: Any) -> list[dict[str, Any]]:
        return []

    async def set_finalizer(self, _: Key, __: str, present: bool) -> None:
        assert not present
        self.manifest = None

    async def tell(self, _: Cluster, reason: str, message: str, *, warning: bool) -> None:
        assert warning
        self.events.append(f"{reason}: {message}")

    async def write_status(self, _: Cluster, status: dict[str, Any]) -> None:
        assert self.manifest is not None
        self.manifest["status"] = status


def keeper(api: Any, metrics: Metrics | None = None, turn: Turn | None = None) -> Keeper:
    defaults, metrics = Defaults("imserver:2"), metrics or Metrics()
    return Keeper(api, KEY, instance="me", defaults=defaults, resync=30, metrics=metrics, turn=turn or Turn())


async def test_a_spec_that_cant_be_read_is_told_once_in_every_way():
    api, metrics = FakeApi(), Metrics()
    kept = keeper(api, metrics)
    for _ in range(2):
        kept.mark()
        assert not await kept._pass()
    (event,) = api.events
    assert event.startswith("InvalidSpec: ") and "replicas" in event
    assert api.manifest is not None
    degraded = api.manifest["status"]["conditions"][2]
    assert (degraded["status"], degraded["reason"]) == ("True", "InvalidSpec")
    assert metrics.registry.get_sample_value("imoperator_degraded", {"namespace": "ns", "name": "chat"}) == 1


async def test_its_deletion_waits_for_nothing():
    api = FakeApi(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[FINALIZER])
    kept = keeper(api)
    assert not await kept._pass()
    assert api.events[0].startswith("KeysLeft: ")
    kept.mark()
    assert await kept._pass(), "it is gone"


async def test_routes_are_looked_for_until_none_is_left_whoever_wanted_them():
    api = FakeApi()
    manifest = api.manifest | {"spec": {"redis": {"url": "redis://r"}}}  # type: ignore[operator]
    kept = keeper(api)
    api.live = {("HTTPRoute", "chat-0"): {"metadata": {"name": "chat-0"}}}
    await kept._look(manifest)
    await kept._look(manifest)
    api.live = {}
    await kept._look(manifest)
    await kept._look(manifest)
    assert api.asked == [True, True, True, False], "an operator that begins, or one whose removal failed, asks, too"
    await kept._close()


@pytest.mark.parametrize("deleting_at", [None, 60.0])
async def test_an_imcluster_that_is_to_go_takes_no_prefix(deleting_at):
    class Prefix:
        """Notes how it is asked for."""

        async def hold(self, **how: bool) -> bool:
            asked.append(how)
            raise Taken("of others")

    asked: list[dict[str, bool]] = []
    kept = keeper(FakeApi())
    kept._redis = Prefix()  # type: ignore[assignment]
    spec = parse_spec({"redis": {"url": "redis://r"}})
    await kept._look_at_redis(Cluster(KEY, "uid", 1, spec, adopt=True, deleting_at=deleting_at), Seen(0.0))
    assert asked == [{"adopt": True, "only_keep": deleting_at is not None}]


async def test_servers_are_left_as_they_are_while_a_secret_is_missing():
    spec = {"redis": {"urlFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}}
    before = pod_template(
        Cluster(KEY, "uid", 3, parse_spec(spec)), Defaults("imserver:2"), {Ref("Secret", "s", "k"): "digest"}
    )
    at = Cluster(KEY, "uid", 3, parse_spec(spec))
    live = owned(at, statefulset(at, before, "spec", 1, 1))

    class Api(FakeApi):
        async def children(self, _: Key, *, routes: bool) -> dict[tuple[str, str], dict[str, Any]]:
            return {("StatefulSet", "chat"): live}

        async def value(self, _: str, __: Ref) -> None:
            return None

        async def tell(self, *_: Any, **__: Any) -> None:
            pass

    async def apply(_: Cluster, __: Seen, template: str, ___: Plan) -> None:
        applied.append(template)

    applied: list[str] = []
    api = Api(finalizers=[FINALIZER])
    assert api.manifest is not None
    api.manifest["spec"] = spec
    kept = keeper(api)
    kept._apply = apply  # type: ignore[assignment]
    assert not await kept._pass()
    assert applied == [digest(before)]
    assert api.manifest["status"]["conditions"][2]["reason"] == "SecretMissing"


class OneSecret(FakeApi):
    """Has one value for whatever the spec refers to."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self.content = content

    async def value(self, _: str, __: Ref) -> bytes:
        return self.content

    def with_redis(self, redis: dict[str, Any]) -> dict[str, Any]:
        """The ImCluster with this Redis."""
        assert self.manifest is not None
        return self.manifest | {"spec": {"redis": redis}}


FROM_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


@pytest.mark.parametrize(
    ("redis", "content", "reason", "sentence"),
    [
        ({"url": "redis://h/abc"}, b"", "BadRedisURL", "db must be a number"),
        ({"url": "redis+sentinel://h"}, b"", "BadRedisURL", "name the service"),
        ({"urlFrom": FROM_SECRET, "tls": {"caFrom": FROM_SECRET}}, b"redis://:hush@h", "BadRedisURL", "needs TLS"),
        ({"urlFrom": FROM_SECRET}, b"hush:h", "BadRedisURL", "must begin with one of"),
        ({"urlFrom": FROM_SECRET}, b"\xffhush", "SecretMissing", "must hold text in UTF-8 under the key 'k'"),
    ],
)
async def test_a_redis_that_cant_be_used_is_told_by_what_is_wrong(redis, content, reason, sentence):
    api = OneSecret(content)
    problem = await keeper(api)._look(api.with_redis(redis))
    assert problem is not None and problem.reason == reason
    assert sentence in problem.message and "hush" not in problem.message


async def test_a_bad_url_leaves_the_link_that_is_there_as_it_is():
    api = OneSecret()
    kept = keeper(api)
    assert await kept._look(api.with_redis({"url": "redis://h"})) is None
    before, closed = kept._redis, kept._ending._closing
    assert await kept._look(api.with_redis({"url": "redis://h/abc"})) is not None
    assert kept._redis is before and not closed
    await kept._close()


@pytest.fixture
def upgraded() -> Seen:
    """A StatefulSet that has the operator's new template already, and whose pods are still the old ones."""
    pods = tuple(Pod(f"chat-{i}", i, f"u{i}", "old", 0.0, ready=True) for i in range(2))
    return Seen(0.0, pods, Workload(2, 2, "new", 1, CAUSE_OTHER, "old", "new", True))


def planned(turn: Turn, seen: Seen, view: RedisView | None, kept: Keeper | None = None) -> Plan:
    """What the keeper plans, once every other cluster was heard of."""
    cluster = Cluster(KEY, "uid", 1, parse_spec({"replicas": 2, "redis": {"url": "redis://r"}}))
    kept = kept or keeper(None, turn=turn)
    turn.heard(KEY)
    return kept._plan(cluster, seen, view, "new")


def test_who_cant_reach_redis_does_not_keep_the_others_from_their_turn(upgraded):
    turn = Turn()
    steps = planned(turn, upgraded, None)
    assert (steps.replicas, steps.rolling) == (2, False), "nothing is begun that could not be finished"
    assert turn.take(OTHER, under_way=False)


def test_a_roll_out_under_way_keeps_its_turn_while_redis_is_away(upgraded):
    turn = Turn()
    kept = keeper(None, turn=turn)
    assert planned(turn, upgraded, RedisView(None, {}), kept).rolling
    assert planned(turn, upgraded, None, kept).rolling
    assert not turn.take(OTHER, under_way=False)


def test_the_turn_is_kept_while_the_last_old_pod_is_gone_and_its_successor_not_there(upgraded):
    turn = Turn()
    new = tuple(replace(upgraded.pods[1], ordinal=i, name=f"chat-{i}", revision="new") for i in (1, 2))
    under_way = replace(upgraded, pods=new, workload=replace(upgraded.workload, replicas=3, partition=0))
    assert planned(turn, under_way, RedisView(None, {})).rolling
    assert not turn.take(OTHER, under_way=False)


@pytest.mark.parametrize("owner", ["uid", "another"])
async def test_the_end_of_an_imcluster_removes_no_statefulset_of_others(owner):
    api = FakeApi(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[FINALIZER])
    assert api.manifest is not None
    owners = [{"kind": "ImCluster", "name": "chat", "uid": owner, "controller": True}]
    api.live["StatefulSet", "chat"] = {"metadata": {"name": "chat", "ownerReferences": owners}}
    deleted = read_cluster(api.manifest | {"spec": {"redis": {"url": "redis://r"}}})
    ending = Ending(api)  # type: ignore[arg-type]
    assert not await ending.step(deleted, Seen(deleted.deleting_at or 0.0), None, None, foreign=False)
    assert list(api.live) == ([] if owner == "uid" else [("StatefulSet", "chat")])


@pytest.mark.parametrize("view", [RedisView(None, {}), None], ids=["with Redis", "without"])
def test_after_a_restart_the_turn_is_for_the_one_that_is_in_mid_rollout(upgraded, view):
    turn = Turn()
    mine, others = keeper(None, turn=turn), keeper(None, turn=turn)
    turn.expect(OTHER)
    assert planned(turn, upgraded, RedisView(None, {}), others).rolling is False, "not before all were heard of"
    half = tuple(replace(p, revision="new" if p.ordinal else "old") for p in upgraded.pods)
    under_way = replace(upgraded, pods=half, workload=replace(upgraded.workload, replicas=3, partition=1))
    assert planned(turn, under_way, view, mine).rolling
    turn.heard(OTHER)
    assert not turn.take(OTHER, under_way=False)


async def test_a_keeper_whose_passes_fail_does_not_keep_the_others_from_their_turn(monkeypatch):
    monkeypatch.setattr(keepers, "BACKOFF_MOST", 0.01)
    turn, api = Turn(), FakeApi()
    kept, failed = keeper(api, turn=turn), 0
    assert not turn.take(OTHER, under_way=False)

    async def one_pass() -> bool:
        nonlocal failed
        failed += 1
        if failed > 3:
            return turn.take(OTHER, under_way=False)
        raise OSError("no route")

    monkeypatch.setattr(kept, "_pass", one_pass)
    await kept.run()
    assert failed == 4
