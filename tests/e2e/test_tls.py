# TLS to Redis inside the cluster: certificates checked both ways, wrong ones told, rotated ones taken without a roll.
# The trial Valkey speaks no TLS, so a small front of the tests' own does, and asks every client for a certificate.

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stage import IMSERVER, Json, Stage, nothing_lost, wait_for
from tests.support.authority import Authority

pytestmark = pytest.mark.timeout(200)

FRONT = Path(__file__).with_name("tls_front.py")
# What each pod shows of its files: the newest certificate is there when all of them show it.
READ = "import pathlib,sys;print(*(pathlib.Path(p).read_text() for p in sys.argv[1:]))"


def _secret(name: str, **content: str) -> Json:
    data = {key.replace("_", "."): Path(path).read_text() for key, path in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def _client(authority: Authority) -> list[Json]:
    """The Secrets that the ImCluster and the business service name."""
    certificate, key = authority.sign("client", "im")
    return [_secret("ca", ca_crt=authority.ca), _secret("client", tls_crt=certificate, tls_key=key)]


def _server(authority: Authority, namespace: str) -> Json:
    """The front's Secret: for servers it is `secure`, for the operator in another namespace `secure.NAMESPACE.svc`."""
    certificate, key = authority.sign("server", "redis", f"DNS:secure,DNS:secure.{namespace}.svc")
    return _secret("front", tls_crt=certificate, tls_key=key, ca_crt=authority.ca)


def _front(stage: Stage) -> list[Json]:
    labels = {"app": "front"}
    container = {
        "name": "front",
        "image": IMSERVER,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/app/bin/python", "/code/tls_front.py", "/tls", "valkey"],
        "volumeMounts": [{"name": "code", "mountPath": "/code"}, {"name": "tls", "mountPath": "/tls"}],
    }
    volumes: list[Json] = [
        {"name": "code", "configMap": {"name": "front"}},
        {"name": "tls", "secret": {"secretName": "front"}},
    ]
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": labels}, "spec": pod}

    def named(name: str, kind: str, version: str, **more: Any) -> Json:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name}} | more

    return [
        named("front", "ConfigMap", "v1", data={"tls_front.py": FRONT.read_text()}),
        named("secure", "Service", "v1", spec={"selector": labels, "ports": [{"port": 6379}]}),
        named("front", "Deployment", "apps/v1", spec={"selector": {"matchLabels": labels}, "template": template}),
    ]


def _shown(stage: Stage, pod: str, folder: str, *names: str) -> str:
    paths = [f"{folder}/{name}" for name in names]
    return "".join(stage.kubectl("exec", pod, "--", "/app/bin/python", "-c", READ, *paths).split())


def test_certificates_of_redis_are_checked_and_rotated(stage, record, tmp_path):
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    stage.valkey()
    stage.tools()
    stage.apply(_server(first, stage.namespace), *_front(stage))
    stage.kubectl("rollout", "status", "deploy/front", "--timeout=60s", timeout=70)
    tls = {"caFrom": {"secretKeyRef": {"name": "ca", "key": "ca.crt"}}, "certFrom": {"secretRef": {"name": "client"}}}
    stage.imcluster(replicas=2, redis={"url": "rediss://secure:6379", "tls": tls})
    wait_for("the missing Secret to be told", lambda: _degraded(stage) == "SecretMissing", 30, 0.2)
    stage.apply(_client(first)[0], _client(second)[1])
    wait_for("the wrong certificate to be told", lambda: _degraded(stage) == "RedisUnavailable", 30, 0.2)
    assert stage.pods() == [], "no server is started that could not begin"
    stage.apply(*_client(first))
    stage.ready()
    told = stage.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message")
    assert "'ca' with the key 'ca.crt' is not there" in told and "Redis unreachable: " in told

    traffic = stage.traffic(servers=2, redis="rediss://secure:6379", tls=True)
    old = {p["metadata"]["uid"] for p in stage.pods()}
    began = time.monotonic()
    stage.apply(_server(second, stage.namespace), *_client(second))
    wanted = "".join(Path(second.ca).read_text().split())
    servers = dict.fromkeys(("chat-0", "chat-1"), "/etc/imcluster/redis")
    places = servers | {"deploy/front": "/tls", "traffic": "/redis"}
    stage.renew_mounts()
    wait_for(
        "the kubelet to renew the mounted Secrets",
        lambda: all(_shown(stage, pod, folder, "ca.crt") == wanted for pod, folder in places.items()),
        *(150, 1),
    )
    stage.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    seconds = time.monotonic() - began
    report = traffic.settle(5)
    nothing_lost(report)
    assert {p["metadata"]["uid"] for p in stage.pods()} == old and stage.restarts() == 0, "nothing was rolled"
    wait_for("the operator to use the new ones", lambda: _degraded(stage) == "Healthy", 60)
    record(**report, seconds=round(seconds))


def _degraded(stage: Stage) -> str:
    return str(stage.condition("Degraded")["reason"])
