"""The StatefulSet of a cluster and its pod template, as a pure function of the spec.
The digest of the template tells whether servers must be replaced; replicas and partition are decided elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .model import Cluster, Defaults, Manifest, Ref
from .names import CAUSE, GENERATION, GROUP, SERVING, TEMPLATE, headless, labels, selector
from .spec import Redis, Server, Spec

__all__ = ["ADMIN_PORT", "PORT", "digest", "pod_template", "references", "references_of", "statefulset"]

PORT, ADMIN_PORT = 6001, 9600
REFERENCES = f"{GROUP}/references"
_SECRETS = "/etc/imcluster/redis"
# Time for the pod to end after its drain: closing handshakes, goodbyes, the kubelet.
END_SECONDS = 30
_DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def digest(value: Any) -> str:
    """A short digest of a JSON value, the same for the same value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def references(spec: Spec) -> list[Ref]:
    """Keys of Secrets and ConfigMaps that the environment takes values from, sorted."""
    found: set[Ref] = set()
    if spec.redis.url_from is not None:
        ref = spec.redis.url_from.secret_key_ref
        found.add(Ref("Secret", ref.name, ref.key))
    for entry in spec.pod_template.env:
        source = entry.get("valueFrom")
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            # The CRD lets anything through here; what is no reference is refused with the pod template.
            at = source.get(field) if isinstance(source, Mapping) else None
            if isinstance(at, Mapping) and at.get("name") and at.get("key"):
                found.add(Ref(kind, str(at["name"]), str(at["key"])))
    return sorted(found)


def _required(spec: Spec) -> set[Ref]:
    """Those of `references(spec)` without which no pod starts."""
    env = tuple(entry for entry in spec.pod_template.env if not _optional(entry))
    return set(references(replace(spec, pod_template=replace(spec.pod_template, env=env))))


def _optional(entry: Mapping[str, Any]) -> bool:
    source = entry.get("valueFrom") or {}
    if not isinstance(source, Mapping):
        return False
    found = [source.get(field) for field in ("secretKeyRef", "configMapKeyRef")]
    return any(isinstance(at, Mapping) and at.get("optional") for at in found)


def references_of(statefulset: Manifest | None) -> str:
    """The digest of the referred values in the template of a StatefulSet as the API has it; empty without one."""
    metadata = statefulset["spec"]["template"].get("metadata") or {} if statefulset else {}
    return str((metadata.get("annotations") or {}).get(REFERENCES, ""))


def _redis_env(redis: Redis) -> list[Manifest]:
    env: list[Manifest] = []
    if redis.url_from is not None:
        ref = redis.url_from.secret_key_ref
        env.append({"name": "IM_REDIS_URL", "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}})
    else:
        env.append({"name": "IM_REDIS_URL", "value": redis.url or ""})
    if redis.username is not None:
        env.append({"name": "IM_REDIS_USERNAME", "value": redis.username})
    if redis.password_from is not None:
        env.append({"name": "IM_REDIS_PASSWORD_FILE", "value": f"{_SECRETS}/password"})
    if redis.tls is not None and redis.tls.ca_from is not None:
        env.append({"name": "IM_REDIS_CA_FILE", "value": f"{_SECRETS}/ca.crt"})
    if redis.tls is not None and redis.tls.cert_from is not None:
        env.append({"name": "IM_REDIS_CERT_FILE", "value": f"{_SECRETS}/tls.crt"})
        env.append({"name": "IM_REDIS_KEY_FILE", "value": f"{_SECRETS}/tls.key"})
    return env


def _redis_sources(redis: Redis) -> list[Manifest]:
    """The Secrets that are mounted for Redis; mounted as a folder, since a subPath would never be renewed."""

    def source(name: str, *items: tuple[str, str]) -> Manifest:
        return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in items]}}

    found: list[Manifest] = []
    if redis.password_from is not None:
        ref = redis.password_from.secret_key_ref
        found.append(source(ref.name, (ref.key, "password")))
    if redis.tls is not None and redis.tls.ca_from is not None:
        ref = redis.tls.ca_from.secret_key_ref
        found.append(source(ref.name, (ref.key, "ca.crt")))
    if redis.tls is not None and redis.tls.cert_from is not None:
        name = redis.tls.cert_from.secret_ref.name
        found.append(source(name, ("tls.crt", "tls.crt"), ("tls.key", "tls.key")))
    return found


def _number(value: object) -> str:
    """A number as imserver reads it: never with an exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _server_env(server: Server) -> list[Manifest]:
    env = []
    for name in (field.name for field in fields(Server)):
        value = getattr(server, name)
        if name == "allowed_origins":
            if not value:
                continue
            value = ",".join(value)
        env.append({"name": f"IM_{name.upper()}", "value": _number(value)})
    return env


def _env(spec: Spec) -> list[Manifest]:
    return [
        {"name": "IM_SERVER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IM_TOPOLOGY", "value": "operator"},
        {"name": "IM_PREFIX", "value": spec.redis.prefix},
        {"name": "IM_PORT", "value": str(PORT)},
        {"name": "IM_ADMIN_PORT", "value": str(ADMIN_PORT)},
        {"name": "IM_DRAIN_RATE", "value": _number(spec.drain.sockets_per_second)},
        {"name": "IM_DRAIN_TIMEOUT_SECONDS", "value": str(spec.drain.timeout_seconds)},
        *_redis_env(spec.redis),
        *_server_env(spec.server),
        *[dict(entry) for entry in spec.pod_template.env],
    ]


def _probe(path: str, **more: int) -> Manifest:
    return {"httpGet": {"path": path, "port": "admin"}, "timeoutSeconds": 3} | more


def _container(spec: Spec, defaults: Defaults, mounts: list[Manifest]) -> Manifest:
    return {
        "name": "imserver",
        "image": spec.image or defaults.image,
        "imagePullPolicy": spec.image_pull_policy or defaults.image_pull_policy,
        "ports": [
            {"name": "ws", "containerPort": PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "env": _env(spec),
        "resources": spec.pod_template.resources or _DEFAULT_RESOURCES,
        # Redis being away must not restart servers: neither probe asks for it once the server has started.
        "startupProbe": _probe("/healthz", periodSeconds=1, failureThreshold=60),
        "readinessProbe": _probe("/readyz", periodSeconds=2, failureThreshold=2),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # What a server says last becomes the reason in the ImCluster's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def pod_template(cluster: Cluster, defaults: Defaults, digests: Mapping[Ref, str], kept: str = "") -> Manifest:
    """The template of the servers' pods. `digests` holds one text for each of `references(spec)` that exists.

    `kept` is `references_of` the StatefulSet, which stays while one of those that pods need is missing: servers that
    run have read it, and new ones could not start.
    """
    spec, name = cluster.spec, cluster.key.name
    more, user = spec.pod_template, defaults.run_as_user
    volumes, mounts = [dict(v) for v in more.volumes], [dict(m) for m in more.volume_mounts]
    sources = _redis_sources(spec.redis)
    if sources:
        volumes.append({"name": "imcluster-redis", "projected": {"defaultMode": 0o440, "sources": sources}})
        mounts.append({"name": "imcluster-redis", "mountPath": _SECRETS, "readOnly": True})
    term: Manifest = {
        "labelSelector": {"matchLabels": selector(name)},
        "topologyKey": "kubernetes.io/hostname",
    }
    affinity = more.affinity
    if affinity is None:
        affinity = {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
            }
        }
    spread = [dict(c) for c in more.topology_spread_constraints] or [
        {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **term}
    ]
    annotations = dict(more.annotations)
    if kept and not _required(spec) <= digests.keys():
        annotations[REFERENCES] = kept
    elif digests:
        annotations[REFERENCES] = digest({f"{r.kind}/{r.name}/{r.key}": d for r, d in digests.items()})
    pod: Manifest = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        # A Service called "im" would otherwise set IM_PORT in every pod of the namespace.
        "enableServiceLinks": False,
        # As process 1 a server that is told to end before it has a handler for that would never hear of it.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": spec.drain.timeout_seconds + END_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}),
        },
        "affinity": affinity,
        "topologySpreadConstraints": spread,
        "containers": [_container(spec, defaults, mounts)],
    }
    secrets = [s.name for s in spec.image_pull_secrets] or list(defaults.image_pull_secrets)
    optional = {
        "imagePullSecrets": [{"name": s} for s in secrets],
        "tolerations": [dict(t) for t in more.tolerations],
        "nodeSelector": dict(more.node_selector),
        "priorityClassName": more.priority_class_name,
        "volumes": volumes,
    }
    pod |= {key: value for key, value in optional.items() if value}
    metadata = {"labels": dict(more.labels) | labels(name) | {SERVING: "true"}}
    return {"metadata": metadata | ({"annotations": annotations} if annotations else {}), "spec": pod}


def statefulset(cluster: Cluster, template: Manifest, cause: str, replicas: int, partition: int) -> Manifest:
    """The StatefulSet. `cause` says who changed the template last.

    Its selector, serviceName and podManagementPolicy never change: Kubernetes would refuse that.
    """
    name = cluster.key.name
    marks = {TEMPLATE: digest(template), GENERATION: str(cluster.generation), CAUSE: cause}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "annotations": marks},
        "spec": {
            "replicas": replicas,
            "serviceName": headless(name),
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": selector(name)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
            "template": template,
        },
    }
