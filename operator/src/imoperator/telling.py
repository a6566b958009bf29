"""Writes the status of one ImCluster and the events that tell of its changes, and sets its metric.
What changes often is written now and then; what keeps failing is told, too."""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path
from time import monotonic

from imhelper.errors import ImError

from .api import UNANSWERED, Api
from .metrics import Metrics
from .model import Cluster, Manifest, Problem
from .names import Key
from .observe import read_bare
from .status import COUNTERS_SECONDS, events_of, failed_status, urgent

__all__ = ["EXPECTED", "Teller", "describe"]

log = logging.getLogger(__name__)

# Failures that need no trace in the log: what they say is written for people.
EXPECTED = (*UNANSWERED, ImError)
MOST_CHARACTERS = 500


def describe(error: Exception) -> str:
    """A failure in a line for the status. Of one that nobody foresaw only the place: its words might be a secret."""
    if isinstance(error, EXPECTED):
        return " ".join(f"{type(error).__name__}: {error}".split())[:MOST_CHARACTERS]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).parent == Path(__file__).parent] or list(frames)
    where = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{where}; the operator's log has more"


class Teller:
    """What one keeper says of its cluster."""

    def __init__(self, api: Api, metrics: Metrics) -> None:
        self._api, self._metrics = api, metrics
        self._written = float("-inf")
        self._wanted: int | None = None

    async def scale(self, cluster: Cluster) -> None:
        """Tell of another size than before."""
        before, self._wanted = self._wanted, cluster.spec.replicas
        if before is not None and before != self._wanted:
            await self._api.tell(cluster, "Scaled", f"Scaled {before} → {self._wanted}", warning=False)

    async def write(self, cluster: Cluster, status: Manifest) -> bool:
        """Write what has changed, counters now and then, and tell people of it. Whether it was written."""
        self._metrics.degraded.labels(*cluster.key).set(status["conditions"][2]["status"] == "True")
        now = monotonic()
        hurry = urgent(cluster.status, status)
        if not hurry and (status == cluster.status or now - self._written < COUNTERS_SECONDS):
            return False
        if hurry:
            for event in events_of(cluster.status, status):
                await self._api.tell(cluster, event.reason, event.message, warning=event.warning)
        await self._api.write_status(cluster, status)
        self._written = now
        return True

    async def failed(self, key: Key, error: Exception) -> None:
        """Tell that the passes over a cluster fail. Raises nothing: who can't be asked now is asked the next time."""
        try:
            manifest = await self._api.cluster(key)
            if manifest is not None:
                cluster = read_bare(manifest)
                problem = Problem("ReconcileFailed", describe(error))
                await self.write(cluster, failed_status(cluster, time.time(), problem))
        except Exception as another:
            log.warning("%s: that its passes fail could not be told: %s", key, describe(another))
