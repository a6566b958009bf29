"""What the operator knows when it decides: the ImCluster, its StatefulSet and pods, the servers' leases, the table.
Plain values: the shells fill them in from the API and from Redis, the deciding modules only read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imhelper.core.leases import Lease
from imhelper.core.topology import Topology

from .names import Key
from .spec import Spec

__all__ = ["Cluster", "Defaults", "Manifest", "Pod", "Problem", "RedisView", "Ref", "Seen", "Workload"]

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the chart decides for ImClusters that do not say it themselves."""

    image: str
    # The numeric user and group of the servers; None leaves both to the platform.
    run_as_user: int | None = field(default=10001, kw_only=True)
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """One ImCluster as the API has it. `deleting_at` is when its deletion was asked for, in seconds since 1970."""

    key: Key
    uid: str
    generation: int
    spec: Spec
    adopt: bool = False
    deleting_at: float | None = None
    has_finalizer: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A key of a Secret or ConfigMap that the pods read only when they start, so that a change must roll them."""

    kind: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. Times are seconds since 1970. `trouble` is what its container says about why it does not run.

    `changed` is when `ready` became what it is; None for one that never was ready.
    """

    name: str
    ordinal: int
    uid: str
    revision: str
    created: float
    ready: bool = False
    deleting_since: float | None = None
    serving: bool = True
    draining_since: float | None = None
    trouble: str = ""
    finished: bool = False
    changed: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a cluster is not as it should be: one word for programs, a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Workload:
    """The StatefulSet. `current` says whether its controller has seen what was applied last."""

    replicas: int
    partition: int
    template: str
    generation: int
    cause: str
    current_revision: str
    update_revision: str
    current: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What the API showed at one time, in seconds since 1970.

    `absent` tells since when an ordinal of the StatefulSet has no pod, `without_url` since when a pod that is ready
    has no URL, as the operator has seen it.
    """

    at: float
    pods: tuple[Pod, ...] = ()
    workload: Workload | None = None
    node_ports: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[int, float] = field(default_factory=dict)
    without_url: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RedisView:
    """What Redis showed last: the table in force and every server's lease; `dead` are those whose beat stood still."""

    topology: Topology | None
    leases: Mapping[str, Lease]
    dead: frozenset[str] = frozenset()
