"""Puts the operator together: election, watching, one keeper a cluster, the resync that finds what a watch missed.
Only the leader keeps clusters; a replica that stops leading lets go of everything at once."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from time import monotonic

from aiohttp import web
from lightkube import AsyncClient

from .api import UNANSWERED, Api
from .health import start_health
from .keeper import Keeper
from .leader import STOP_SECONDS, Elector
from .metrics import Metrics
from .names import FINALIZER, Key
from .settings import Settings
from .turn import Turn
from .watch import Watcher

__all__ = ["Manager"]

log = logging.getLogger(__name__)

EXIT_FAILED = 1
# A keeper whose pass takes longer hangs: its calls all have timeouts well below.
PASS_MOST_SECONDS = 180.0
END_SECONDS = 8.0


class Manager:
    """One operator process. `run` returns the exit code."""

    def __init__(self, settings: Settings, client: AsyncClient) -> None:
        self._settings = settings
        self._api = Api(client)
        self._elector = Elector(client, settings.namespace, settings.lease_name, settings.identity)
        self._metrics = Metrics()
        self._turn = Turn()
        self._keepers: dict[Key, Keeper] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._unknown = asyncio.Event()
        self._changed = asyncio.Event()
        # Whether this replica has listed all clusters since it leads, or since that failed.
        self._listed = False
        self._tried = monotonic()
        self._failed: list[str] = []
        self._watcher: Watcher | None = None
        self._main: dict[str, asyncio.Task[None]] = {}

    def problems(self) -> list[str]:
        """Why this process should be started again; nothing while reconciling goes on."""
        now, found = monotonic(), list(self._failed)
        if self._watcher is not None and not self._watcher.alive:
            found.append("kopf has ended")
        found += [f"{name} has ended" for name, task in self._main.items() if task.done()]
        if now - self._elector.tried > 8 * STOP_SECONDS:
            found.append("the Lease is not asked for any more")
        if self._elector.leading:
            if now - self._tried > 4 * self._settings.resync_seconds + STOP_SECONDS:
                found.append("the resync does not go on")
            late = [str(k) for k, keeper in self._keepers.items() if now - keeper.passed > PASS_MOST_SECONDS]
            found += [f"{name} is not reconciled any more" for name in late]
        return found

    async def run(self) -> int:
        """Run until a signal or a failure."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        health = await start_health(self._settings.port, self._metrics, self.problems)
        self._watcher = Watcher(self._settings.watch_namespaces, loop, self._mark)
        self._watcher.start()
        self._main = {
            "the election": loop.create_task(self._elector.run(self._changed)),
            "the resync": loop.create_task(self._lead()),
        }
        stopped = loop.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *self._main.values()], return_when=asyncio.FIRST_COMPLETED)
            for name, task in self._main.items():
                if task.done():
                    log.critical("%s has ended", name, exc_info=task.exception() if not task.cancelled() else None)
            return 0 if stopped.done() else EXIT_FAILED
        finally:
            stopped.cancel()
            await self._end(health)

    async def _end(self, health: web.AppRunner) -> None:
        self._main["the resync"].cancel()
        await asyncio.wait([self._main["the resync"]], timeout=END_SECONDS)
        await self._drop_all()
        self._main["the election"].cancel()
        # Before the next one may lead: at no time do two replicas say that they lead.
        self._metrics.leader.set(0)
        await self._elector.give_back()
        if self._watcher is not None:
            await self._watcher.stop()
        await health.cleanup()

    def _mark(self, key: Key) -> None:
        keeper = self._keepers.get(key)
        if keeper is not None:
            keeper.mark()
        else:
            self._unknown.set()
            self._changed.set()

    async def _lead(self) -> None:
        """While this replica leads, list all clusters now and then, and whenever an unknown one was seen."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._metrics.leader.set(self._elector.leading)
            if not self._elector.leading:
                await self._drop_all()
                self._listed = False
                continue
            due = not self._listed or monotonic() - self._tried >= self._settings.resync_seconds
            if due or self._unknown.is_set():
                self._unknown.clear()
                self._listed = await self._resync()

    async def _resync(self) -> bool:
        """Keep what is not kept yet. Whether the clusters could be listed."""
        try:
            found = await self._api.clusters(self._settings.watch_namespaces)
        except UNANSWERED as error:
            log.warning("the ImClusters could not be listed: %s", error)
            return False
        finally:
            self._tried = monotonic()
        self._metrics.resync.set(time.time())
        for manifest in found:
            metadata = manifest["metadata"]
            key = Key(metadata["namespace"], metadata["name"])
            # One that is going and does not wait for this operator is not its business any more.
            going = metadata.get("deletionTimestamp") and FINALIZER not in (metadata.get("finalizers") or ())
            if key not in self._keepers and not going:
                self._keep(key)
        return True

    def _keep(self, key: Key) -> None:
        keeper = self._keepers[key] = Keeper(
            self._api,
            key,
            instance=self._settings.identity,
            defaults=self._settings.defaults,
            resync=self._settings.resync_seconds,
            metrics=self._metrics,
            turn=self._turn,
        )
        task = self._tasks[key] = asyncio.get_running_loop().create_task(keeper.run())
        task.add_done_callback(lambda done: self._ended(key, done))
        log.info("%s is looked after", key)

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key], self._keepers[key]
        if task.cancelled():
            return
        if task.exception() is not None:
            log.critical("%s: its keeper has failed", key, exc_info=task.exception())
            self._failed.append(f"the keeper of {key} has failed")
        else:
            log.info("%s is gone", key)
            # Perhaps another one of its name is there already, whose first events the keeper that ended has had.
            self._unknown.set()
            self._changed.set()

    async def _drop_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=END_SECONDS)
