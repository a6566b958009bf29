"""Names, labels and annotations: of the ImCluster's kind, its children, and what the operator writes on pods.
Contract part 7 fixes most of them; what others may rely on is only what stands there."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ADOPT_PREFIX",
    "API_VERSION",
    "APPLIED",
    "CAUSE",
    "CAUSE_OTHER",
    "CAUSE_SPEC",
    "COMPONENT",
    "DRAINING_SINCE",
    "FIELD_MANAGER",
    "FINALIZER",
    "GENERATION",
    "GROUP",
    "INSTANCE",
    "KIND",
    "MANAGED_BY",
    "MANAGER",
    "NAME",
    "PLURAL",
    "SERVING",
    "SHORT",
    "SINGULAR",
    "TEMPLATE",
    "VERSION",
    "Key",
    "headless",
    "labels",
    "ordinal_of",
    "pod_name",
    "selector",
]

GROUP, VERSION, KIND, PLURAL, SINGULAR, SHORT = "imcluster.io", "v1", "ImCluster", "imclusters", "imcluster", "imc"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "imoperator"
FINALIZER = f"{GROUP}/redis-keys"
MANAGER = "imoperator"

NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
MANAGED_BY, COMPONENT = "app.kubernetes.io/managed-by", "app.kubernetes.io/component"

# On pods: "true" while clients may be sent to it; Services select by it.
SERVING = f"{GROUP}/serving"
# On pods: since when it is draining, as seconds since 1970; survives a restart of the operator.
DRAINING_SINCE = f"{GROUP}/draining-since"
# On children: a digest of the manifest as it was applied last.
APPLIED = f"{GROUP}/applied"
# On the StatefulSet: a digest of the pod template, the generation of the ImCluster that was applied last, and who
# changed the template last: the spec, or the operator (or a Secret), whose roll-outs go one cluster at a time.
TEMPLATE, GENERATION, CAUSE = f"{GROUP}/template", f"{GROUP}/generation", f"{GROUP}/cause"
CAUSE_SPEC, CAUSE_OTHER = "spec", "other"
# On an ImCluster: it may take over a prefix that another one, now gone, has left.
ADOPT_PREFIX = f"{GROUP}/adopt-prefix"


class Key(NamedTuple):
    """Which ImCluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def labels(name: str) -> dict[str, str]:
    """The labels that all children carry."""
    return {NAME: "imserver", INSTANCE: name, MANAGED_BY: MANAGER}


def selector(name: str) -> dict[str, str]:
    """What the StatefulSet selects its pods by; never changes after v1."""
    return {NAME: "imserver", INSTANCE: name}


def headless(name: str) -> str:
    """The headless Service that gives the pods their names."""
    return f"{name}-pods"


def pod_name(name: str, ordinal: int) -> str:
    """The pod of an ordinal."""
    return f"{name}-{ordinal}"


def ordinal_of(name: str, pod: str) -> int | None:
    """The ordinal of a pod of this cluster, or None when it is not one."""
    head, _, tail = pod.rpartition("-")
    return int(tail) if head == name and tail.isdigit() else None
