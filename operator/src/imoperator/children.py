"""All children of an ImCluster as manifests: what there must be, and so what there must not be.
Each carries the owner reference, the labels, and a digest of itself, so that drift is seen without asking."""

from __future__ import annotations

from typing import Any

from .model import Cluster, Manifest
from .names import API_VERSION, APPLIED, INSTANCE, KIND, MANAGED_BY, MANAGER, labels, selector
from .routes import routes
from .workload import digest

__all__ = ["children", "covers", "drifted", "normal", "owned", "owner", "whose"]


def owner(cluster: Cluster) -> Manifest:
    """The owner reference that makes a child go with its ImCluster."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": cluster.key.name,
        "uid": cluster.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def whose(cluster: Cluster, live: Manifest) -> str:
    """What keeps this ImCluster from writing over a live object; nothing when it is its own child.

    Its own is what names it as owner, whatever labels that has lost; and what carries the labels of its children and
    has no owner: so does a child whose reference somebody removed, or that was orphaned on purpose.
    """
    owners = live["metadata"].get("ownerReferences") or ()
    if any(o.get("uid") == cluster.uid for o in owners):
        return ""
    other = next((o for o in owners if o.get("controller")), None)
    if other is not None and (other.get("kind"), other.get("name")) == (KIND, cluster.key.name):
        return "is left of an earlier ImCluster of this name; its removal is waited for"
    if other is not None:
        return f"belongs to {other.get('kind')} {other.get('name')}; one of the two needs another name"
    marks = live["metadata"].get("labels") or {}
    if (marks.get(INSTANCE), marks.get(MANAGED_BY)) == (cluster.key.name, MANAGER):
        return ""
    return "is there already and not of this ImCluster's; one of the two needs another name"


def owned(cluster: Cluster, manifest: Manifest) -> Manifest:
    """A child's manifest with everything that all children have."""
    metadata = manifest["metadata"]
    whole = manifest | {
        "metadata": metadata
        | {
            "namespace": cluster.key.namespace,
            "labels": labels(cluster.key.name) | metadata.get("labels", {}),
            "ownerReferences": [owner(cluster)],
        }
    }
    annotations = dict(metadata.get("annotations", {}))
    whole["metadata"]["annotations"] = annotations | {APPLIED: digest(whole)}
    return whole


def _service_account(cluster: Cluster) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": cluster.key.name},
        "automountServiceAccountToken": False,
    }


def _budget(cluster: Cluster) -> Manifest:
    # AlwaysAllow: a pod that is not ready anyway must not stop the draining of a node.
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": cluster.key.name},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(cluster.key.name)},
        },
    }


def children(cluster: Cluster, statefulset: Manifest, ordinals: int) -> list[Manifest]:
    """Every child, in the order in which they are applied: what others need comes first. `ordinals` as in `reach`."""
    parts = [_service_account(cluster), _budget(cluster), *routes(cluster, ordinals), statefulset]
    return [owned(cluster, part) for part in parts]


def covers(live: Any, wanted: Any) -> bool:
    """Whether a live object still holds all that is wanted; what others or defaults added does not count."""
    if live is None and wanted in ("", [], {}):
        # The API server leaves empty values away.
        return True
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(covers(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(live) != len(wanted):
            return False
        return all(covers(a, b) for a, b in zip(live, wanted, strict=True))
    return bool(live == wanted)


def normal(wanted: Any, live: Any) -> Any:
    """What was wanted, as the API server has written it: the live values of the fields that were applied."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return {key: normal(value, live[key]) if key in live else value for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        return [normal(a, b) for a, b in zip(wanted, live, strict=True)]
    return wanted if live is None or isinstance(wanted, dict | list) else live


def drifted(live: Manifest | None, wanted: Manifest, applied: Manifest | None = None) -> bool:
    """Whether a child must be applied: it is absent, was applied from another manifest, or was edited by hand.

    `applied` is `normal(…)` of what was applied last, when that is known.
    """
    if live is None:
        return True
    marks = live.get("metadata", {}).get("annotations") or {}
    if marks.get(APPLIED) != wanted["metadata"]["annotations"][APPLIED]:
        return True
    if applied is not None and covers(applied["metadata"]["annotations"], {APPLIED: marks[APPLIED]}):
        wanted = applied
    return not covers(live, {k: v for k, v in wanted.items() if k not in ("apiVersion", "kind")})
