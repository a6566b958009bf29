"""How clients come in: Services, the Ingress or the HTTPRoutes, and the URL of each server. Pure functions of the spec.
What PerPodPath needs is written for all ordinals at once, so that scaling never edits an Ingress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import Cluster, Manifest, Seen
from .names import COMPONENT, SERVING, headless, pod_name, selector
from .spec import IN_CLUSTER, PER_POD_PATH, SHARED, Exposure
from .workload import PORT

__all__ = ["node_port_service", "reach", "routes", "server_url"]

PER_POD = "per-pod"


def _port() -> Manifest:
    return {"name": "ws", "port": PORT, "targetPort": "ws", "protocol": "TCP"}


def _service(name: str, spec: Manifest, component: str, annotations: Mapping[str, str] | None = None) -> Manifest:
    metadata: Manifest = {"name": name, "labels": {COMPONENT: component}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _typed(exposure: Exposure) -> Manifest:
    spec: Manifest = {"type": exposure.service.type}
    if exposure.service.external_traffic_policy is not None and exposure.service.type != "ClusterIP":
        spec["externalTrafficPolicy"] = exposure.service.external_traffic_policy
    return spec


def reach(cluster: Cluster, seen: Seen, before: int) -> int:
    """How many ordinals PerPodPath is written for: every one that may come to be, those of a roll-out included.

    While there are pods beyond that, since the spec was changed, it stays what it was `before`: they hold clients, and
    an Ingress that is written once for all of them cuts the others' WebSockets once at most.
    """
    most = cluster.spec.exposure.max_ordinals + cluster.spec.rollout.max_surge
    highest = max((p.ordinal + 1 for p in seen.pods), default=0)
    return max(most, highest, before) if highest > most else most


def _path(cluster: Cluster) -> str:
    exposure, key = cluster.spec.exposure, cluster.key
    if exposure.path is not None:
        return exposure.path
    return f"/{key.namespace}/{key.name}" if exposure.type == PER_POD_PATH else ""


def _services(cluster: Cluster, ordinals: range) -> list[Manifest]:
    name, exposure = cluster.key.name, cluster.spec.exposure
    per_pod = exposure.type == PER_POD_PATH
    found = [
        _service(
            headless(name),
            {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector(name), "ports": [_port()]},
            "pods",
        ),
        _service(
            name,
            ({"type": "ClusterIP"} if per_pod else _typed(exposure))
            | {"selector": selector(name) | {SERVING: "true"}, "ports": [_port()]},
            "clients",
            None if per_pod else exposure.service.annotations,
        ),
    ]
    if per_pod:
        for ordinal in ordinals:
            pod = pod_name(name, ordinal)
            chosen = selector(name) | {"statefulset.kubernetes.io/pod-name": pod}
            spec = _typed(exposure) | {"publishNotReadyAddresses": True, "selector": chosen, "ports": [_port()]}
            found.append(_service(pod, spec, PER_POD, exposure.service.annotations))
    return found


def _ingress(cluster: Cluster, ordinals: range) -> Manifest:
    name, exposure = cluster.key.name, cluster.spec.exposure

    def backend(path: str, service: str) -> Manifest:
        return {
            "path": path,
            "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"name": "ws"}}},
        }

    if exposure.type == PER_POD_PATH:
        paths = [backend(f"{_path(cluster)}/{i}", pod_name(name, i)) for i in ordinals]
    else:
        paths = [backend(_path(cluster) or "/", name)]
    rule: Manifest = {"http": {"paths": paths}}
    spec: Manifest = {"rules": [rule]}
    if exposure.host is not None:
        rule["host"] = exposure.host
    if exposure.ingress_class_name is not None:
        spec["ingressClassName"] = exposure.ingress_class_name
    if exposure.tls.enabled and exposure.tls.secret_name is not None:
        spec["tls"] = [{"secretName": exposure.tls.secret_name} | ({"hosts": [exposure.host]} if exposure.host else {})]
    # Ingress controllers close idle connections after a minute by default; pings keep them open, this adds room.
    annotations = {
        "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
        "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
    } | dict(exposure.annotations)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": spec,
    }


def _http_routes(cluster: Cluster, ordinals: range) -> list[Manifest]:
    exposure, found = cluster.spec.exposure, []
    parents: list[dict[str, Any]] = []
    for ref in exposure.gateway.parent_refs if exposure.gateway else ():
        values = {"name": ref.name, "namespace": ref.namespace, "sectionName": ref.section_name}
        parents.append({k: v for k, v in values.items() if v is not None})
    for ordinal in ordinals:
        pod = pod_name(cluster.key.name, ordinal)
        rule = {
            "matches": [{"path": {"type": "PathPrefix", "value": f"{_path(cluster)}/{ordinal}"}}],
            "backendRefs": [{"name": pod, "port": PORT}],
        }
        metadata: Manifest = {"name": pod} | (
            {"annotations": dict(exposure.annotations)} if exposure.annotations else {}
        )
        spec = {"parentRefs": parents, "hostnames": [exposure.host], "rules": [rule]}
        route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
        found.append(route)
    return found


def routes(cluster: Cluster, ordinals: int) -> list[Manifest]:
    """The Services and the Ingress or HTTPRoutes that the exposure asks for, the pods' own for so many `ordinals`."""
    exposure, every = cluster.spec.exposure, range(ordinals)
    found = _services(cluster, every)
    if exposure.gateway is not None:
        found.extend(_http_routes(cluster, every))
    elif exposure.type == PER_POD_PATH or (exposure.type == SHARED and exposure.ingress_class_name is not None):
        found.append(_ingress(cluster, every))
    return found


def node_port_service(cluster: Cluster, ordinal: int) -> str:
    """The Service whose node port stands for {nodePort} in the URL of an ordinal."""
    name = cluster.key.name
    return pod_name(name, ordinal) if cluster.spec.exposure.type == PER_POD_PATH else name


def server_url(cluster: Cluster, ordinal: int, node_ports: Mapping[str, int]) -> str | None:
    """The URL that clients of this ordinal get; None while it needs a node port that is not given out yet."""
    key, exposure = cluster.key, cluster.spec.exposure
    pod = pod_name(key.name, ordinal)
    if exposure.url_template is not None:
        port = node_ports.get(node_port_service(cluster, ordinal))
        if port is None and "{nodePort}" in exposure.url_template:
            return None
        values = {"namespace": key.namespace, "name": key.name, "pod": pod, "ordinal": str(ordinal)}
        url = exposure.url_template
        for word, value in (values | {"host": exposure.host or "", "nodePort": str(port)}).items():
            url = url.replace("{" + word + "}", value)
        return url
    if exposure.type == IN_CLUSTER:
        return f"ws://{pod}.{headless(key.name)}.{key.namespace}.svc:{PORT}/ws"
    scheme = "wss" if exposure.tls.enabled else "ws"
    middle = f"/{ordinal}" if exposure.type == PER_POD_PATH else ""
    return f"{scheme}://{exposure.host}{_path(cluster)}{middle}/ws"
