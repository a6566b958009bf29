"""The wanted children of one cluster, rendered again only when something that they depend on has changed.
With many ordinals they are megabytes of JSON; a pass each second would fill the loop that renews the Lease."""

from __future__ import annotations

from collections.abc import Mapping

from .children import children
from .model import Cluster, Defaults, Manifest, Ref
from .workload import digest, pod_template, statefulset

__all__ = ["Rendering"]


class Rendering:
    """The last rendered children. A spec never changes without its generation."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._of_template: object = None
        self._template: Manifest = {}
        self._digest = ""
        self._of_children: object = None
        self._children: list[Manifest] = []

    def template(self, cluster: Cluster, digests: Mapping[Ref, str], kept: str = "") -> str:
        """The digest of the pod template. `digests` and `kept` as in `pod_template`."""
        of = (cluster.uid, cluster.generation, dict(digests), kept)
        if of != self._of_template:
            self._template = pod_template(cluster, self._defaults, digests, kept)
            self._of_template, self._digest = of, digest(self._template)
        return self._digest

    def children(self, cluster: Cluster, cause: str, replicas: int, partition: int, ordinals: int) -> list[Manifest]:
        """Every child with the template that was asked for last; the same list as long as nothing has changed."""
        of = (self._of_template, cause, replicas, partition, ordinals)
        if of != self._of_children:
            work = statefulset(cluster, self._template, cause, replicas, partition)
            self._children, self._of_children = children(cluster, work, ordinals), of
        return self._children
