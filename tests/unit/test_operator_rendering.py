# A pass in which nothing has changed renders nothing, compares nothing, and is not begun for a status of one's own.

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from imoperator import applying
from imoperator.applying import Applier
from imoperator.children import children
from imoperator.model import Cluster, Defaults, Ref
from imoperator.names import Key
from imoperator.rendering import Rendering
from imoperator.spec import parse_spec
from imoperator.watch import Watcher
from imoperator.workload import digest, pod_template, statefulset

SPEC = {"redis": {"url": "redis://r"}, "exposure": {"type": "PerPodPath", "host": "h", "maxOrdinals": 2}}
CLUSTER = Cluster(Key("ns", "chat"), "uid", 1, parse_spec(SPEC))
OTHER = replace(CLUSTER, generation=2, spec=parse_spec(SPEC | {"server": {"pingSeconds": 9}}))
VALUES: dict[str, Any] = {"cause": "spec", "replicas": 2, "partition": 2, "ordinals": 3}
DEFAULTS, REF = Defaults("imserver:1"), Ref("Secret", "s", "k")


def render(rendering: Rendering, cluster: Cluster = CLUSTER, digests: Any = None, **more: Any) -> list[dict[str, Any]]:
    """What is rendered, compared with what it must be."""
    digests, values = digests or {}, VALUES | more
    template = pod_template(cluster, DEFAULTS, digests)
    assert rendering.template(cluster, digests) == digest(template)
    work = statefulset(cluster, template, values["cause"], values["replicas"], values["partition"])
    found = rendering.children(cluster, **values)
    assert found == children(cluster, work, values["ordinals"])
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": OTHER},
        {"digests": {REF: "x"}},
        {"cause": "other"},
        {"replicas": 3},
        {"partition": 1},
        {"ordinals": 4},
    ],
    ids=str,
)
def test_what_is_rendered_follows_each_thing_that_it_depends_on(change):
    rendering = Rendering(DEFAULTS)
    first = render(rendering)
    assert render(rendering, replace(CLUSTER, status={"epoch": 2})) is first, "a status is none of them"
    assert render(rendering, **change) != first
    assert render(rendering, **change) is render(rendering, **change)
    assert render(rendering) == first


async def test_what_was_found_right_is_not_compared_again_before_the_next_look(monkeypatch):
    compared: list[str] = []

    def drifted(live: Any, wanted: dict[str, Any], applied: Any) -> bool:
        compared.append(wanted["kind"])
        return False

    monkeypatch.setattr(applying, "drifted", drifted)
    applier, wanted = Applier(None), render(Rendering(DEFAULTS))  # type: ignore[arg-type]
    for _ in range(3):
        assert await applier.apply(CLUSTER, wanted) == (False, None)
    assert len(compared) == len(wanted)
    applier.observed({})
    await applier.apply(CLUSTER, wanted)
    await applier.apply(CLUSTER, list(wanted))
    assert len(compared) == 3 * len(wanted), "after a look, and when something else is wanted"


async def test_a_status_that_was_written_is_no_news_of_an_imcluster():
    marked: list[Key] = []
    watcher = Watcher([], asyncio.get_running_loop(), marked.append)
    meta: dict[str, Any] = {"namespace": "ns", "name": "chat", "uid": "u", "generation": 1, "resourceVersion": "1"}
    assert watcher._changes(None, meta)
    assert not watcher._changes("MODIFIED", meta | {"resourceVersion": "2"})
    news: list[dict[str, Any]] = [
        {"generation": 2},
        {"uid": "v"},
        {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"annotations": {"imcluster.io/adopt-prefix": "true"}},
        {"finalizers": ["x"]},
        {"name": "other"},
    ]
    for change in news:
        assert watcher._changes("MODIFIED", meta | change), change
        watcher._changes("MODIFIED", meta)
    assert watcher._changes("DELETED", meta)
    assert watcher._changes("ADDED", meta), "also the same again, once it was gone"
