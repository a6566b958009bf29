# What is applied, what is not asked for again, what is removed: the applier and the keeper against an API in memory.

from typing import Any

import pytest
from lightkube import ApiError
from lightkube.models.meta_v1 import Status

from imoperator.applying import Applier
from imoperator.children import owned
from imoperator.model import Cluster
from imoperator.names import Key
from imoperator.spec import parse_spec

CLUSTER = Cluster(Key("ns", "chat"), "uid", 1, parse_spec({"redis": {"url": "redis://r"}}))


class FakeApi:
    """Keeps what is applied; refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.refusing: set[str] = set()
        self.version = 0

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.calls.append(f"apply {kind} {name}")
        if kind in self.refusing:
            raise ApiError(status=Status(code=403, message=f"{kind} is forbidden"))
        old = self.live.get((kind, name))
        if old is None or {**old["metadata"], "resourceVersion": ""} != {**manifest["metadata"], "resourceVersion": ""}:
            self.version += 1
        found = manifest | {"metadata": manifest["metadata"] | {"resourceVersion": str(self.version)}}
        self.live[kind, name] = found
        return found

    async def child(self, kind: str, _: Key, name: str) -> dict[str, Any] | None:
        self.calls.append(f"ask {kind} {name}")
        return self.live.get((kind, name))

    async def remove(self, kind: str, key: Key, name: str) -> None:
        self.calls.append(f"remove {kind} {name}")
        del self.live[kind, name]

    @staticmethod
    def prunable(kind: str) -> bool:
        return kind == "Service"


def child(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return owned(CLUSTER, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec})


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def applier(api: FakeApi) -> Applier:
    return Applier(api)  # type: ignore[arg-type]


async def test_what_is_right_is_left_alone_and_the_statefulset_goes_last(api, applier):
    wanted = [child("StatefulSet", "chat", replicas=2), child("Service", "chat", a=1)]
    assert await applier.apply(CLUSTER, wanted) == (True, None)
    made = ["ask Service chat", "apply Service chat", "ask StatefulSet chat", "apply StatefulSet chat"]
    assert api.calls == made
    applier.observed(dict(api.live))
    assert await applier.apply(CLUSTER, wanted) == (False, None)
    assert api.calls == made


async def test_an_edit_by_hand_is_undone(api, applier):
    wanted = [child("Service", "chat", a=1)]
    await applier.apply(CLUSTER, wanted)
    live = api.live["Service", "chat"]
    edited = live | {"spec": {"a": 2}, "metadata": live["metadata"] | {"resourceVersion": "50"}}
    applier.observed({("Service", "chat"): edited})
    await applier.apply(CLUSTER, wanted)
    assert api.calls.count("apply Service chat") == 2


async def test_a_refusal_is_told_until_it_is_over_and_asked_again_only_after_a_look(api, applier):
    api.refusing = {"Ingress"}
    wanted = [child("Ingress", "chat", a=1), child("Service", "chat", a=1)]
    changed, problem = await applier.apply(CLUSTER, wanted)
    assert changed and problem is not None
    assert (problem.reason, problem.message) == ("ApplyFailed", "Ingress chat: Ingress is forbidden")
    assert await applier.apply(CLUSTER, wanted) == (False, problem)
    assert api.calls.count("apply Ingress chat") == 1
    api.refusing = set()
    applier.observed(dict(api.live))
    assert await applier.apply(CLUSTER, wanted) == (True, None)


async def test_what_is_one_too_many_goes_unless_it_is_somebody_elses(api, applier):
    theirs = child("Service", "theirs")
    theirs["metadata"]["ownerReferences"][0]["uid"] = "another"
    for manifest in (child("Service", "chat"), child("Service", "chat-5"), theirs, child("ServiceAccount", "old")):
        await api.apply(manifest)
    applier.observed(dict(api.live))
    changed, _ = await applier.apply(CLUSTER, [child("Service", "chat")])
    assert changed
    assert [call for call in api.calls if call.startswith("remove")] == ["remove Service chat-5"]
    assert (await applier.apply(CLUSTER, [child("Service", "chat")]))[0] is False


def theirs(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "ns", "resourceVersion": "7"} | metadata}


def controlled(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "uid": "another", "controller": True}]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "is there already and not of this ImCluster's"),
        ({"ownerReferences": controlled("Deployment", "app")}, "belongs to Deployment app"),
        ({"ownerReferences": controlled("ImCluster", "chat-0")}, "belongs to ImCluster chat-0"),
        # Ours by its labels, but of the ImCluster that was deleted.
        (
            {"ownerReferences": controlled("ImCluster", "chat"), "labels": child("Service", "x")["metadata"]["labels"]},
            "is left of an earlier ImCluster of this name; its removal is waited for",
        ),
    ],
)
async def test_what_belongs_to_others_is_left_alone_and_no_server_begins_beside_it(api, applier, metadata, words):
    app = api.live["Service", "chat"] = theirs("Service", "chat", **metadata)
    wanted = [child("ServiceAccount", "chat"), child("Service", "chat"), child("StatefulSet", "chat", replicas=2)]
    changed, problem = await applier.apply(CLUSTER, wanted)
    assert changed and problem is not None
    assert problem.reason == "NameTaken" and problem.message.startswith(f"Service chat {words}")
    assert api.live["Service", "chat"] is app
    assert [call for call in api.calls if call.startswith("apply")] == ["apply ServiceAccount chat"]
    del api.live["Service", "chat"]
    applier.observed(dict(api.live))
    assert await applier.apply(CLUSTER, wanted) == (True, None)
    assert api.calls[-1] == "apply StatefulSet chat"


async def test_servers_that_run_go_on_when_a_further_name_is_taken(api, applier):
    work = child("StatefulSet", "chat", replicas=2)
    await api.apply(work)
    applier.observed(dict(api.live))
    api.live["Service", "chat-9"] = theirs("Service", "chat-9")
    changed, problem = await applier.apply(
        CLUSTER, [child("Service", "chat-9"), child("StatefulSet", "chat", replicas=3)]
    )
    assert changed and problem is not None and problem.reason == "NameTaken"
    assert api.live["StatefulSet", "chat"]["spec"] == {"replicas": 3}


async def test_a_child_that_lost_its_labels_or_its_owner_is_healed(api, applier):
    for name, what in (("chat", "labels"), ("chat-pods", "ownerReferences")):
        wanted = child("Service", name)
        api.live["Service", name] = wanted | {"metadata": {k: v for k, v in wanted["metadata"].items() if k != what}}
        assert await applier.apply(CLUSTER, [wanted]) == (True, None)
        assert api.live["Service", name]["metadata"][what] == wanted["metadata"][what]


async def test_what_others_have_added_to_a_list_is_not_fought_and_real_drift_is_healed(api, applier, monkeypatch):
    ours, theirs = {"name": "IM_PORT", "value": "6001"}, {"name": "TZ", "value": "UTC"}
    wanted, apply = [child("StatefulSet", "chat", replicas=2, env=[ours])], api.apply

    async def keeps_theirs(manifest: dict[str, Any]) -> dict[str, Any]:
        """As a server-side apply does with what another manager has added to a list with keys."""
        before = api.live.get(("StatefulSet", "chat"))
        spec = manifest["spec"] | {"env": [theirs, *manifest["spec"]["env"]]}
        after: dict[str, Any] = await apply(manifest | {"spec": spec})
        if before is not None and before["spec"] != spec:
            api.version += 1
            after["metadata"]["resourceVersion"] = str(api.version)
        return after

    monkeypatch.setattr(api, "apply", keeps_theirs)
    await applier.apply(CLUSTER, wanted)
    applied = len(api.calls)
    for _ in range(3):
        applier.observed(dict(api.live))
        assert await applier.apply(CLUSTER, wanted) == (False, None)
    assert len(api.calls) == applied
    live = api.live["StatefulSet", "chat"]
    touched = live | {"metadata": live["metadata"] | {"resourceVersion": "77"}}
    for _ in range(3):
        applier.observed({("StatefulSet", "chat"): touched})
        await applier.apply(CLUSTER, wanted)
        touched = api.live["StatefulSet", "chat"]
    assert len(api.calls) == applied + 1, "another change of it is looked at once"
    edited = {"metadata": live["metadata"] | {"resourceVersion": "99"}, "spec": live["spec"] | {"replicas": 5}}
    api.live["StatefulSet", "chat"] = live | edited
    applier.observed(dict(api.live))
    assert await applier.apply(CLUSTER, wanted) == (True, None)
    assert api.live["StatefulSet", "chat"]["spec"]["replicas"] == 2
