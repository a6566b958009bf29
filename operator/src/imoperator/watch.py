"""kopf watches; what it sees only marks an ImCluster as dirty. Runs in a thread and an event loop of its own.
No handler waits or writes, so kopf adds neither annotations nor finalizers to anything."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import kopf

from .names import GROUP, INSTANCE, MANAGED_BY, MANAGER, PLURAL, VERSION, Key

__all__ = ["CHILDREN", "Watcher"]

log = logging.getLogger(__name__)

# Whole numbers: the API server refuses others.
SERVER_TIMEOUT = 240
CLIENT_TIMEOUT = 300
STOP_SECONDS = 10.0
_OURS = {MANAGED_BY: MANAGER}
CHILDREN = (("v1", "pods"), ("v1", "services"), ("apps", "v1", "statefulsets"))


class Watcher:
    """Calls `mark(key)` on the given loop for each change of an ImCluster or one of its children."""

    def __init__(self, namespaces: Sequence[str], loop: asyncio.AbstractEventLoop, mark: Callable[[Key], None]) -> None:
        self._namespaces, self._loop, self._mark = tuple(namespaces), loop, mark
        # What was seen last of each ImCluster, its status apart.
        self._known: dict[tuple[str | None, str | None], tuple[str, ...]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether kopf still runs; it should until `stop`."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """End the watching; bounded."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=self._registry(),
                    settings=_settings(),
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    standalone=True,
                    # Unused without peering; kopf's own way to find one needs an entry in /etc/passwd.
                    identity=cast(Any, MANAGER),
                    stop_flag=self._stop,
                )
            )
        except BaseException as error:
            self.failure = error
            log.critical("kopf has ended", exc_info=error)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        def changed_cluster(type: str | None, meta: Mapping[str, Any], **_: Any) -> None:
            if self._changes(type, meta):
                self._tell(meta.get("namespace"), meta.get("name"))

        def changed_child(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
            self._tell(namespace, labels.get(INSTANCE))

        kopf.on.login(registry=registry)(login)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(changed_cluster)
        for resource in CHILDREN:
            kopf.on.event(*resource, registry=registry, labels=_OURS)(changed_child)
        return registry

    def _changes(self, event: str | None, meta: Mapping[str, Any]) -> bool:
        """Whether an event tells of more than a status, which the keeper has written itself."""
        key = meta.get("namespace"), meta.get("name")
        if event == "DELETED":
            self._known.pop(key, None)
            return True
        names = ("uid", "generation", "deletionTimestamp", "annotations", "finalizers")
        found = tuple(repr(meta.get(name)) for name in names)
        before, self._known[key] = self._known.get(key), found
        return found != before

    def _tell(self, namespace: str | None, name: str | None) -> None:
        if namespace and name and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._mark, Key(namespace, name))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = CLIENT_TIMEOUT
    settings.networking.request_timeout = 30.0
    # The API server leaves out what is not ours, so that a large cluster's pods never pass through here.
    for resource in CHILDREN:
        settings.watching.label_selectors[resource] = f"{MANAGED_BY}={MANAGER}"
    return settings
