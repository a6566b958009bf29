# Passes that fail: after a few in a row the status says so, without words that might be a secret. The API is in memory.

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from lightkube import ApiError
from lightkube.models.meta_v1 import Status

from imhelper.errors import TopologyError
from imoperator import keeper as keepers
from imoperator.metrics import Metrics
from imoperator.model import Cluster, Ref, Seen
from imoperator.names import FINALIZER, Key
from imoperator.spec import parse_spec
from imoperator.telling import describe
from imoperator.workload import references
from tests.support.waiting import eventually
from tests.unit.test_operator_keeper import FakeApi, keeper

READABLE = {"redis": {"url": "redis://r"}, "replicas": 2}
CLUSTER = Cluster(Key("ns", "chat"), "uid", 1, parse_spec(READABLE))
DEGRADED = {"namespace": "ns", "name": "chat"}
POD = {
    "metadata": {"name": "chat-0", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]},
}


class Refusing(FakeApi):
    """Lists no children for an operator whose Role is too small."""

    def __init__(self) -> None:
        super().__init__(finalizers=[FINALIZER])
        assert self.manifest is not None
        self.manifest["spec"] = READABLE
        self.status = self.manifest["status"] = {
            "replicas": 2,
            "servers": [{"name": "chat-0", "state": "active"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }

    async def children(self, _: Key, *, routes: bool) -> dict[tuple[str, str], dict[str, Any]]:
        self.asked.append(routes)
        raise ApiError(status=Status(code=403, message="ingresses is forbidden:\nsay no"))


def conditions(api: FakeApi) -> dict[str, tuple[str, str, str]]:
    assert api.manifest is not None
    return {c["type"]: (c["status"], c.get("reason"), c.get("message")) for c in api.manifest["status"]["conditions"]}


async def test_what_fails_for_good_is_told_and_what_was_known_stays(monkeypatch):
    monkeypatch.setattr(keepers, "BACKOFF_MOST", 0.01)
    api, metrics = Refusing(), Metrics()
    task = asyncio.get_running_loop().create_task(keeper(api, metrics).run())
    try:
        await eventually(lambda: len(api.asked) > 5)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert api.manifest is not None
    message = "ApiError: ingresses is forbidden: say no"
    assert conditions(api) == {
        "Ready": ("False", "ReconcileFailed", message),
        "Progressing": ("False", "ReconcileFailed", message),
        "Degraded": ("True", "ReconcileFailed", message),
    }
    assert {k: api.manifest["status"][k] for k in ("replicas", "servers")} == {
        k: api.status[k] for k in ("replicas", "servers")
    }
    assert api.events == [f"ReconcileFailed: {message}"], "told once"


async def test_a_blink_is_not_told(monkeypatch):
    monkeypatch.setattr(keepers, "BACKOFF_MOST", 0.01)
    api, metrics = Refusing(), Metrics()
    kept = keeper(api, metrics)
    passes = 0

    async def one_pass() -> bool:
        nonlocal passes
        passes += 1
        if passes % 3:
            raise OSError("the API server is restarted")
        return passes == 9

    monkeypatch.setattr(kept, "_pass", one_pass)
    await kept.run()
    assert metrics.registry.get_sample_value("imoperator_reconcile_total", {"result": "error"}) == 6
    assert api.events == [] and api.manifest is not None and api.manifest["status"] is api.status


async def test_it_is_degraded_for_the_alert_and_an_api_that_is_away_raises_nothing():
    api, metrics = Refusing(), Metrics()
    kept = keeper(api, metrics)
    await kept._teller.failed(kept._key, OSError("no route"))
    assert metrics.registry.get_sample_value("imoperator_degraded", DEGRADED) == 1

    async def away(_: Key) -> None:
        raise OSError("no route")

    api.cluster = away  # type: ignore[method-assign]
    await kept._teller.failed(kept._key, OSError("no route"))


def raised(act: Callable[[], Any]) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("it raises nothing")


def test_of_a_failure_that_nobody_foresaw_only_the_place_is_told():
    told = describe(raised(lambda: dict[str, str]()["hunter2"]))
    assert told.startswith("KeyError at test_operator_failing.py:") and "hunter2" not in told
    assert describe(OSError("a\nb")) == "OSError: a b"


async def test_a_table_that_another_release_has_written_is_told_and_keeps_nothing_from_its_end():
    kept = keeper(FakeApi())

    class Redis:
        async def hold(self, **_: bool) -> bool:
            return True

        async def view(self, *_: Any) -> None:
            raise TopologyError("the topology in Redis has format 9, this release reads format 1")

    kept._redis = Redis()  # type: ignore[assignment]
    view, problem = await kept._look_at_redis(CLUSTER, Seen(0.0))
    assert view is None and problem is not None
    assert problem.reason == "TopologyUnreadable" and "format 9" in problem.message
    assert await kept._look_at_redis(CLUSTER, Seen(0.0)) == (None, problem), "it is not asked again at once"


@pytest.mark.parametrize(
    "source",
    [
        None,
        {},
        "x",
        {"secretKeyRef": None},
        {"secretKeyRef": "x"},
        {"secretKeyRef": {}},
        {"configMapKeyRef": {"key": "k"}},
    ],
)
def test_a_reference_that_is_none_is_passed_over(source):
    env = [{"name": "A", "valueFrom": source}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    assert references(parse_spec(READABLE | {"podTemplate": {"env": env}})) == [Ref("Secret", "s", "k")]


async def test_a_spec_that_cant_be_read_leaves_what_is_known_of_the_servers():
    api = FakeApi()
    assert api.manifest is not None
    entry = {"name": "chat-0", "state": "active", "url": "ws://0/ws", "slots": 128}
    api.manifest["status"] = {"servers": [entry, {"name": "chat-1", "state": "active"}], "epoch": 4}

    async def pods(*_: Any) -> list[dict[str, Any]]:
        return [POD]

    api.pods = pods  # type: ignore[method-assign]
    assert not await keeper(api)._pass()
    status = api.manifest["status"]
    assert conditions(api)["Degraded"][1] == "InvalidSpec"
    assert {k: status[k] for k in ("replicas", "readyReplicas", "epoch", "servers")} == {
        "replicas": 1,
        "readyReplicas": 1,
        "epoch": 4,
        "servers": [entry],
    }
