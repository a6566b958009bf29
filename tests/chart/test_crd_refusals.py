# What the API server itself says to bad ImClusters: each gets a sentence that says what it must be.
# Needs a cluster (KUBECONFIG); the CRD that the operator's types give is applied to it first.

import copy
import json
import secrets
from typing import Any

import pytest

from tests.support.kube import install_crd, kubectl, refused, require

GOOD: dict[str, Any] = {
    "apiVersion": "imcluster.io/v1",
    "kind": "ImCluster",
    "metadata": {"name": "good"},
    "spec": {"redis": {"url": "redis://redis:6379"}},
}
LONG = "x" * 3000


@pytest.fixture(scope="module", autouse=True)
def crd():
    require("kubectl")
    install_crd()


def manifest(changes: dict[str, Any]) -> str:
    """The good manifest with some fields changed; a path is written with dots, None removes."""
    changed = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = changed
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return json.dumps(changed)


PER_POD = {"spec.exposure.type": "PerPodPath", "spec.exposure.host": "chat.example.org"}
BAD = [
    ({"spec": {}}, "spec.redis: Required value"),
    ({"spec.replicas": -1}, "spec.replicas in body should be greater than or equal to 0"),
    ({"spec.replicas": 65}, "must be with replicas at most exposure.maxOrdinals"),
    ({"spec.replicas": "three"}, 'spec.replicas in body must be of type integer: "string"'),
    ({"spec.slots": 100}, "must be a power of two from 16 to 1024"),
    ({"spec.slots": 8}, "spec.slots in body should be greater than or equal to 16"),
    ({"spec.slots": 2048}, "spec.slots in body should be less than or equal to 1024"),
    ({"spec.image": ""}, "spec.image in body should be at least 1 chars long"),
    ({"spec.imagePullPolicy": "Sometimes"}, 'supported values: "Always", "IfNotPresent", "Never"'),
    ({"spec.redis.url": None}, "must be given by exactly one of url and urlFrom"),
    (
        {"spec.redis.urlFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        "must be given by exactly one of url and urlFrom",
    ),
    ({"spec.redis.url": "http://redis"}, "must be a URL like redis://host:6379"),
    ({"spec.redis.url": "redis://:secret@redis"}, "must be without a password"),
    ({"spec.redis.url": "redis+sentinel://s/m?sentinel_password=x"}, "must be without the Sentinels' password"),
    ({"spec.redis.url": "redis+sentinel://s/m?db=1&sentinel_password=x"}, "must be without the Sentinels' password"),
    ({"spec.redis.url": "redis+sentinel://one:26379,two"}, "must be with the service that Sentinel monitors"),
    ({"spec.redis.url": "sentinel://one/?db=1"}, "must be with the service that Sentinel monitors"),
    (
        {"spec.redis.tls": {"caFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}},
        "must be with a url that begins with rediss when there is tls",
    ),
    ({"spec.redis.url": f"redis://{LONG}"}, "may not be more than 2048"),
    ({"spec.redis.prefix": "a{b}"}, "must be letters, digits, '-', '_' or '.'"),
    ({"spec.redis.prefix": ""}, "must be letters, digits, '-', '_' or '.'"),
    ({"spec.redis.prefix": "x" * 64}, "may not be more than 63"),
    ({"spec.redis.passwordFrom": {"secretKeyRef": {"name": "s"}}}, "spec.redis.passwordFrom.secretKeyRef.key"),
    ({"spec.server.graceSeconds": 60, "spec.server.retainSeconds": 60}, "must be with graceSeconds less than"),
    ({"spec.server.maxConnections": 0}, "maxConnections in body should be greater than or equal to 1"),
    ({"spec.server.pingSeconds": 0.5}, "pingSeconds in body should be greater than or equal to 1"),
    ({"spec.server.leaseSeconds": 301}, "leaseSeconds in body should be less than or equal to 300"),
    ({"spec.server.logLevel": "loud"}, 'supported values: "debug", "info", "warning", "error"'),
    ({"spec.server.allowedOrigins": ["example.org"]}, "must be origins like https://example.org"),
    ({"spec.server.allowedOrigins": ["*", "*"]}, "Duplicate value"),
    ({"spec.exposure.type": "LoadBalancer"}, 'supported values: "InCluster", "Shared", "PerPodPath"'),
    ({"spec.exposure.type": "PerPodPath"}, "must be with a host when the type is PerPodPath"),
    ({"spec.exposure.type": "Shared"}, "must be with a host or a urlTemplate when the type is Shared"),
    ({"spec.exposure.host": "Chat_Example"}, "must be a host name in lower case"),
    (PER_POD | {"spec.exposure.path": "chat/"}, "must be a path like /chat"),
    (PER_POD | {"spec.exposure.urlTemplate": "ws://{host}/ws"}, "must be with a urlTemplate that holds {ordinal}"),
    ({"spec.exposure.type": "Shared", "spec.exposure.urlTemplate": "wss://{host}/ws"}, "must be with a host when the"),
    ({"spec.exposure.urlTemplate": "ws://{pod}.{host}/ws"}, "must be with a host when the urlTemplate holds {host}"),
    (
        {"spec.exposure.type": "Shared", "spec.exposure.urlTemplate": "ws://h:{nodePort}/ws"},
        "must be with a service.type of NodePort or LoadBalancer when the urlTemplate holds {nodePort}",
    ),
    (
        PER_POD | {"spec.exposure.urlTemplate": "ws://h:{nodePort}/ws", "spec.exposure.service.type": "ClusterIP"},
        "must be with a service.type of NodePort or LoadBalancer when the urlTemplate holds {nodePort}",
    ),
    ({"spec.exposure.urlTemplate": "http://{host}/ws"}, "must be a URL that begins with ws:// or wss://"),
    ({"spec.exposure.urlTemplate": "ws://{pod}.{zone}/ws"}, "must be with no other placeholders than"),
    (
        PER_POD | {"spec.exposure.ingressClassName": "nginx", "spec.exposure.gateway": {"parentRefs": [{"name": "g"}]}},
        "must be with either a gateway or an ingressClassName",
    ),
    ({"spec.exposure.gateway": {"parentRefs": [{"name": "g"}]}}, "must be of type PerPodPath to be carried by"),
    (PER_POD | {"spec.exposure.gateway": {"parentRefs": []}}, "should have at least 1 items"),
    ({"spec.exposure.service": {"type": "ExternalName"}}, 'supported values: "ClusterIP", "NodePort", "LoadBalancer"'),
    ({"spec.exposure.maxOrdinals": 0}, "maxOrdinals in body should be greater than or equal to 1"),
    ({"spec.drain.socketsPerSecond": 0}, "must be at least 0.1"),
    ({"spec.drain.timeoutSeconds": 0}, "timeoutSeconds in body should be greater than or equal to 1"),
    ({"spec.rollout.maxSurge": 11}, "maxSurge in body should be less than or equal to 10"),
    ({"spec.rollout.progressDeadlineSeconds": 1}, "progressDeadlineSeconds in body should be greater than"),
    ({"spec.podTemplate.env": [{"name": "IM_PORT", "value": "1"}]}, "must be with names that do not begin with IM_"),
    ({"spec.podTemplate.env": [{"value": "1"}]}, "spec.podTemplate.env[0].name: Required value"),
    ({"spec.autoscaling": {"minReplicas": 1}}, 'unknown field "spec.autoscaling"'),
    ({"metadata.name": "x" * 53}, "must be named by at most 52 lower-case letters"),
    ({"metadata.name": "1chat"}, "beginning with a letter"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_manifest_is_refused_with_a_sentence(changes, sentence):
    text = json.dumps(GOOD | {"spec": {}}) if changes == {"spec": {}} else manifest(changes)
    said = refused("kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
    assert sentence in said, said


GOOD_ONES: list[dict[str, Any]] = [
    {},
    {"spec.redis.url": "redis+sentinel://one:26379,two/main/1?sentinel_username=x"},
    {"spec.redis.url": "rediss+cluster://one,two"},
    PER_POD | {"spec.exposure.urlTemplate": "ws://{host}:{nodePort}/ws", "spec.exposure.service.type": "NodePort"},
    {
        "spec.exposure.type": "Shared",
        "spec.exposure.urlTemplate": "ws://h:{nodePort}/ws",
        "spec.exposure.service.type": "LoadBalancer",
    },
    {"spec.exposure.urlTemplate": "ws://{pod}.{namespace}/ws"},
]


@pytest.mark.parametrize("changes", GOOD_ONES, ids=lambda value: str(value)[:50])
def test_a_good_manifest_is_accepted(changes):
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=manifest(changes))


@pytest.fixture
def existing():
    """An ImCluster that no operator touches: nobody looks after it, since its Redis is nowhere."""
    name = f"immutable-{secrets.token_hex(3)}"
    base = {"metadata.name": name, "spec.replicas": 0, "spec.slots": 64, "spec.redis.prefix": name}
    kubectl("apply", "-f", "-", text=manifest(base))
    yield base
    kubectl("patch", "imc", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("delete", "imc", name, "--wait=false", "--ignore-not-found")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"spec.slots": 128}, "slots can't change"),
        ({"spec.slots": None}, "slots can't change"),
        ({"spec.redis.prefix": "other"}, "redis.prefix can't change"),
        ({"spec.redis.prefix": None}, "redis.prefix can't change"),
    ],
)
def test_what_is_immutable_can_neither_be_changed_nor_removed(existing, changes, what):
    text = manifest(existing | changes)
    said = refused("kubectl", "replace", "--dry-run=server", "-f", "-", text=text)
    assert "must be left as it is" in said and what in said, said


def test_the_printer_columns_are_those_that_the_contract_names(existing):
    header = kubectl("get", "imc", "-A").splitlines()[0].split()
    assert header == ["NAMESPACE", "NAME", "DESIRED", "READY", "CONNECTIONS", "EPOCH", "STATUS", "AGE"]
