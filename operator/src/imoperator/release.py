"""What the chart's pre-delete hook runs: nobody leads any more, and no ImCluster waits for a finalizer.
Running clusters go on as they are; their keys stay in Redis if they are deleted while no operator is there."""

from __future__ import annotations

import asyncio
import logging

import httpx2
from lightkube import AsyncClient

from .api import Api, missing
from .leader import RENEW_SECONDS, Elector
from .names import Key
from .settings import Settings

__all__ = ["release"]

log = logging.getLogger(__name__)

# Long enough for Helm to remove the operator; if the uninstallation fails, it goes on leading after this.
SEIZE_SECONDS = 600


async def release(settings: Settings, client: AsyncClient) -> int:
    """Stop the leader and remove the operator's finalizers. How many ImClusters were looked at."""
    await Elector(client, settings.namespace, settings.lease_name, settings.identity).seize(SEIZE_SECONDS)
    # The leader learns of it at its next renewal, and would write the finalizers again until then.
    await asyncio.sleep(2 * RENEW_SECONDS + 1)
    api = Api(client)
    try:
        found = await api.clusters(settings.watch_namespaces)
    except httpx2.HTTPStatusError as error:
        if missing(error):
            return 0
        raise
    for manifest in found:
        metadata = manifest["metadata"]
        await api.set_finalizer(Key(metadata["namespace"], metadata["name"]), metadata["uid"], False)
    log.info("%d ImClusters were released", len(found))
    return len(found)
