"""The way to the Kubernetes API: lists, server-side apply, small patches. Typed resources, plain manifests.
Decides nothing; every error that is not "it is gone" is the caller's."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.core.resource import NamespacedResourceG
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta, Status
from lightkube.resources.apps_v1 import StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Event, Pod, Secret, Service, ServiceAccount
from lightkube.resources.networking_v1 import Ingress
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.types import CascadeType, PatchType

from .model import Cluster, Manifest, Ref
from .names import (
    API_VERSION,
    FIELD_MANAGER,
    FINALIZER,
    GROUP,
    INSTANCE,
    KIND,
    MANAGED_BY,
    MANAGER,
    PLURAL,
    VERSION,
    Key,
)

__all__ = ["ALL", "UNANSWERED", "Api", "missing"]

log = logging.getLogger(__name__)

ALL = "*"
# What a call raises when the API server refuses it or does not answer.
UNANSWERED = (httpx2.HTTPError, OSError, TimeoutError)
ImCluster = create_namespaced_resource(GROUP, VERSION, KIND, PLURAL)
HTTPRoute = create_namespaced_resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
_KINDS: dict[str, type[NamespacedResourceG]] = {
    "ServiceAccount": ServiceAccount,
    "Service": Service,
    "PodDisruptionBudget": PodDisruptionBudget,
    "StatefulSet": StatefulSet,
    "Ingress": Ingress,
    "HTTPRoute": HTTPRoute,
}
# Kinds of which a cluster has more or fewer as its spec says; the others are always one.
_OPTIONAL = ("Service", "Ingress", "HTTPRoute")


def _plain(resource: Any) -> Manifest:
    """A resource as the manifest that the API sent."""
    manifest: Manifest = resource.to_dict()
    return manifest


def missing(error: httpx2.HTTPStatusError) -> bool:
    """Whether an error says that the object, or its kind, is not there."""
    return error.status.code == 404 if isinstance(error, ApiError) else _unknown_kind(error)


def _unknown_kind(error: httpx2.HTTPStatusError) -> bool:
    """The API server answers in plain text, and so without an ApiError, when it does not know the kind."""
    return not isinstance(error, ApiError) and error.response.status_code == 404


class Api:
    """Calls to the Kubernetes API of one operator process. Raises ApiError and the client's connection errors."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    # ImClusters.

    async def clusters(self, namespaces: Sequence[str]) -> list[Manifest]:
        """All ImClusters of these namespaces; of all namespaces when there is none in the list."""
        found: list[Manifest] = []
        for namespace in namespaces or (ALL,):
            async for item in self._client.list(ImCluster, namespace=namespace, chunk_size=500):
                found.append(_plain(item))
        return found

    async def cluster(self, key: Key) -> Manifest | None:
        """One ImCluster, or None when it is gone."""
        try:
            item = await self._client.get(ImCluster, key.name, namespace=key.namespace)
        except ApiError as error:
            if missing(error):
                return None
            raise
        return _plain(item)

    async def write_status(self, cluster: Cluster, status: Manifest) -> None:
        """Replace the status; nothing happens when the ImCluster is gone meanwhile."""
        patch = {"metadata": {"uid": cluster.uid}, "status": status}
        await self._unless_gone(
            self._client.patch(
                ImCluster.Status, cluster.key.name, patch, namespace=cluster.key.namespace, patch_type=PatchType.MERGE
            )
        )

    async def set_finalizer(self, key: Key, uid: str, present: bool) -> None:
        """Add or remove the operator's finalizer and leave those of others alone."""
        manifest = await self.cluster(key)
        if manifest is None or manifest["metadata"]["uid"] != uid:
            return
        old = list(manifest["metadata"].get("finalizers") or [])
        new = [f for f in old if f != FINALIZER] + ([FINALIZER] if present else [])
        if new == old:
            return
        metadata = {"uid": uid, "resourceVersion": manifest["metadata"]["resourceVersion"], "finalizers": new}
        await self._unless_gone(
            self._client.patch(
                ImCluster, key.name, {"metadata": metadata}, namespace=key.namespace, patch_type=PatchType.MERGE
            )
        )

    async def tell(self, cluster: Cluster, reason: str, message: str, *, warning: bool) -> None:
        """Record a Kubernetes Event about an ImCluster. Events are best effort: a refusal is logged."""
        now = datetime.now(UTC)
        event = Event(
            metadata=ObjectMeta(generateName=f"{cluster.key.name}.", namespace=cluster.key.namespace),
            involvedObject=ObjectReference(
                apiVersion=API_VERSION,
                kind=KIND,
                name=cluster.key.name,
                namespace=cluster.key.namespace,
                uid=cluster.uid,
            ),
            reason=reason,
            message=message[:1000],
            type="Warning" if warning else "Normal",
            count=1,
            firstTimestamp=now,
            lastTimestamp=now,
            source=EventSource(component=MANAGER),
            reportingComponent=MANAGER,
            reportingInstance="",
        )
        try:
            await self._client.create(event)
        except ApiError as error:
            log.warning("%s: the event %s could not be recorded: %s", cluster.key, reason, error)

    # Children.

    async def children(self, key: Key, *, routes: bool) -> dict[tuple[str, str], Manifest]:
        """The live children by kind and name. HTTPRoutes are asked for only when `routes`: few clusters know them."""
        found: dict[tuple[str, str], Manifest] = {}
        labels: dict[str, Any] = {INSTANCE: key.name, MANAGED_BY: MANAGER}
        for kind, resource in _KINDS.items():
            if kind == "HTTPRoute" and not routes:
                continue
            try:
                async for item in self._client.list(resource, namespace=key.namespace, labels=labels):
                    manifest = _plain(item)
                    found[kind, manifest["metadata"]["name"]] = manifest
            except httpx2.HTTPStatusError as error:
                if kind != "HTTPRoute" or not missing(error):
                    raise
        return found

    async def child(self, kind: str, key: Key, name: str) -> Manifest | None:
        """The object of a name, whoever it belongs to. A list: who may list the children needs no further right."""
        fields: dict[str, Any] = {"metadata.name": name}
        try:
            async for item in self._client.list(_KINDS[kind], namespace=key.namespace, fields=fields):
                return _plain(item)
        except httpx2.HTTPStatusError as error:
            if not _unknown_kind(error):
                raise
        return None

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply of one child, forced: what the operator sets is the operator's."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        try:
            applied = await self._client.patch(
                _KINDS[kind],
                metadata["name"],
                manifest,
                namespace=metadata["namespace"],
                patch_type=PatchType.APPLY,
                field_manager=FIELD_MANAGER,
                force=True,
            )
        except httpx2.HTTPStatusError as error:
            if _unknown_kind(error):
                message = f"this cluster does not know {kind} of {manifest['apiVersion']}"
                raise ApiError(status=Status(code=404, message=message)) from error
            raise
        return _plain(applied)

    async def remove(self, kind: str, key: Key, name: str) -> None:
        """Delete one child; what depends on it goes in the background."""
        await self._unless_gone(
            self._client.delete(_KINDS[kind], name, namespace=key.namespace, cascade=CascadeType.BACKGROUND)
        )

    @staticmethod
    def prunable(kind: str) -> bool:
        """Whether a child of this kind may be one too many."""
        return kind in _OPTIONAL

    # Pods.

    async def pods(self, key: Key, labels: dict[str, str]) -> list[Manifest]:
        """The pods with these labels."""
        return [_plain(p) async for p in self._client.list(Pod, namespace=key.namespace, labels=dict(labels))]

    async def mark_pod(self, key: Key, name: str, uid: str, metadata: Manifest) -> None:
        """Change labels and annotations of a pod, unless another of the same name has come meanwhile."""
        patch = {"metadata": metadata | {"uid": uid}}
        try:
            await self._client.patch(Pod, name, patch, namespace=key.namespace, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code not in (404, 409, 422):
                raise

    async def delete_pod(self, key: Key, name: str, uid: str) -> None:
        """Delete a pod in order, unless another of the same name has come meanwhile."""
        try:
            pod = await self._client.get(Pod, name, namespace=key.namespace)
            if pod.metadata is not None and pod.metadata.uid == uid:
                await self._client.delete(Pod, name, namespace=key.namespace)
        except ApiError as error:
            if not missing(error):
                raise

    # Secrets and ConfigMaps.

    async def value(self, namespace: str, ref: Ref) -> bytes | None:
        """The value of the key of a Secret or ConfigMap; None when one of them is not there."""
        kind = Secret if ref.kind == "Secret" else ConfigMap
        try:
            manifest = _plain(await self._client.get(kind, ref.name, namespace=namespace))
        except ApiError as error:
            if missing(error):
                return None
            raise
        text = (manifest.get("data") or {}).get(ref.key)
        if text is None:
            return None
        return base64.b64decode(text) if ref.kind == "Secret" else text.encode()

    async def _unless_gone(self, call: Any) -> None:
        try:
            await call
        except ApiError as error:
            if not missing(error):
                raise
