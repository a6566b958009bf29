"""Since when one cluster waits for what tells no time of its own: pods that are not there, URLs that do not come.
The memory of one keeper; what was told in the status before it began stays told."""

from __future__ import annotations

from dataclasses import replace

from .model import Cluster, Pod, Seen
from .routes import server_url

__all__ = ["Patience"]

_LATE = ("RolloutStuck", "ServersNotReady")


class Patience:
    """Call `note` with each observation, in the order of time."""

    def __init__(self) -> None:
        self._first = True
        self._absent: dict[int, float] = {}
        self._without_url: dict[str, float] = {}
        # When a pod was last seen to be emptied, by its uid.
        self._emptied: dict[str, float] = {}

    def note(self, cluster: Cluster, seen: Seen) -> Seen:
        """The observation with what is known of earlier ones."""
        told = ""
        if self._first:
            conditions = cluster.status.get("conditions", ())
            told = next((c.get("reason", "") for c in conditions if c.get("type") == "Degraded"), "")
            self._first = False
        there = {p.ordinal for p in seen.pods}
        since = 0.0 if told in _LATE else seen.at
        replicas = seen.workload.replicas if seen.workload is not None else 0
        self._absent = {i: self._absent.get(i, since) for i in range(replicas) if i not in there}
        since = 0.0 if told == "NoUrl" else seen.at
        self._without_url = {
            p.name: self._without_url.get(p.name, since)
            for p in seen.pods
            if p.ready and p.deleting_since is None and server_url(cluster, p.ordinal, seen.node_ports) is None
        }
        return replace(seen, pods=self._pods(seen), absent=self._absent, without_url=self._without_url)

    def _pods(self, seen: Seen) -> tuple[Pod, ...]:
        """A server that was emptied and is to serve again has its time from then on: it was not ready meanwhile."""
        emptied = {p.uid: seen.at for p in seen.pods if p.draining_since is not None}
        self._emptied = {p.uid: self._emptied[p.uid] for p in seen.pods if p.uid in self._emptied} | emptied
        return tuple(
            replace(p, changed=max(p.changed or p.created, self._emptied[p.uid]))
            if not p.ready and p.uid in self._emptied
            else p
            for p in seen.pods
        )
