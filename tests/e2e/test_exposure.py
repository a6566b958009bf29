# Exposure without an Ingress: node ports reached from outside the pods, and one HTTPRoute for each possible pod.
# No Gateway runs here: of the Gateway API there is only a CRD as small as can be, so that routes can be stored.

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imhelper import ImHelper
from tests.e2e.outside import address, listens
from tests.e2e.stage import Json, Stage, wait_for
from tests.support.kube import apply, get, kubectl
from tests.support.waiting import eventually
from tests.support.ws import Socket, open_socket

pytestmark = pytest.mark.timeout(200)

ROUTES = "httproutes.gateway.networking.k8s.io"


def _node() -> str:
    addresses = get("nodes")["items"][0]["status"]["addresses"]
    return next(str(a["address"]) for a in addresses if a["type"] == "InternalIP")


def test_node_ports_reached_from_outside(stage, record):
    stage.valkey()
    redis = f"redis://{address(stage, 'valkey')}:6379"
    # The Ingress that goes with PerPodPath takes names only; nothing serves it here.
    template = f"ws://{_node()}:{{nodePort}}/{{ordinal}}/ws"
    exposure = {"type": "Shared", "host": "chat.example.org", "service": {"type": "NodePort"}, "urlTemplate": template}
    stage.imcluster(replicas=2, exposure=exposure)
    stage.ready()
    asyncio.run(_chat_through_node_ports(redis, stage, exposure | {"type": "PerPodPath", "maxOrdinals": 2}))
    assert stage.condition("Degraded")["reason"] == "Healthy"
    record(lost=0)


async def _chat_through_node_ports(redis: str, stage: Stage, per_pod: Json) -> None:
    node, names = _node(), [f"user-{n}" for n in range(16)]
    async with ImHelper(redis) as im, asyncio.TaskGroup() as tasks:
        shared = await _node_port(stage, "chat")
        urls = [await im.prev_connect_server(name) for name in names]
        assert {url.split("/")[2] for url in urls} == {f"{node}:{shared}"}
        clients = [tasks.create_task(_two_messages(url)) for url in urls]
        await eventually(lambda: _all_online(im, names), 30, "every client to be online")
        await im.send_message("biz", names, "through one port")

        await asyncio.to_thread(stage.patch, {"exposure": per_pod})
        ports = {pod: await _node_port(stage, pod) for pod in ("chat-0", "chat-1")}

        async def published() -> bool:
            return {s.url.split("/")[2] for s in await im.servers()} == {f"{node}:{p}" for p in ports.values()}

        await eventually(published, 30, "the URLs of the table")
        for name in names[:6]:
            url = await im.prev_connect_server(name)
            async with open_socket(url, envelope=True) as ws:
                server = (await ws.recv_kind("hello"))["server"]
                assert url.startswith(f"ws://{node}:{ports[server]}/{server[-1]}/ws?"), "each pod has a port of its own"
        await im.send_message("biz", names, "through the old one still")
        for client in clients:
            assert await client == ["through one port", "through the old one still"]


async def _all_online(im: ImHelper, names: list[str]) -> bool:
    return all((await im.has_online_many(names)).values())


async def _node_port(stage: Stage, service: str) -> int:
    """The node port of a Service, once kube-proxy has opened it."""

    def port() -> int:
        text = stage.kubectl("get", "service", service, "--ignore-not-found", "-o", "json")
        found = int(json.loads(text)["spec"]["ports"][0].get("nodePort", 0)) if text else 0
        return found if found and listens(_node(), found) else 0

    return int(await asyncio.to_thread(wait_for, f"the node port of {service}", port, 30))


async def _two_messages(url: str) -> list[str]:
    async with open_socket(url, envelope=True) as ws:
        return [await _message(ws), await _message(ws)]


async def _message(ws: Socket) -> str:
    return str((await ws.recv_kind("msg", 60))["data"])


def _knows_routes() -> bool:
    return bool(kubectl("get", "crd", ROUTES, "--ignore-not-found", "-o", "name"))


@contextmanager
def route_kind(stage: Stage) -> Iterator[None]:
    """The kind HTTPRoute, where the cluster does not have it, without any rule for its content."""
    if _knows_routes():
        yield
        return
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": ROUTES,
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    apply(crd, namespace="default")
    try:
        kubectl("wait", "--for=condition=Established", f"crd/{ROUTES}", "--timeout=30s")
        yield
        stage.kubectl("delete", "imc", "--all", "--timeout=60s", timeout=70)
    finally:
        kubectl("delete", "crd", ROUTES, "--timeout=60s", timeout=70)


def _routes(stage: Stage) -> dict[str, Json]:
    return {r["metadata"]["name"]: r for r in get("httproutes", namespace=stage.namespace)["items"]}


def test_one_http_route_for_each_possible_pod(stage, record):
    gateway = {"parentRefs": [{"name": "public", "namespace": "gateways"}]}
    exposure = {"type": "PerPodPath", "host": "chat.example.org", "maxOrdinals": 2, "gateway": gateway}
    stage.valkey()
    stage.imcluster(replicas=1, exposure=exposure)
    if not _knows_routes():
        wait_for("the condition", lambda: stage.condition("Degraded")["reason"] == "ApplyFailed", 30, 0.2)
        told = "this cluster does not know HTTPRoute of gateway.networking.k8s.io/v1"
        assert stage.condition("Degraded")["message"].endswith(told)
    began = time.monotonic()
    with route_kind(stage):
        stage.ready()
        seconds = time.monotonic() - began
        _life_of_routes(stage, gateway)
    record(seconds=round(seconds))


def _life_of_routes(stage: Stage, gateway: Json) -> None:
    found, uid = _routes(stage), get("imc", "chat", namespace=stage.namespace)["metadata"]["uid"]
    assert set(found) == {"chat-0", "chat-1", "chat-2"}, "maxOrdinals, and the surge pod of a roll-out"
    for ordinal, name in enumerate(sorted(found)):
        route = found[name]
        (owner,) = route["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (uid, True)
        assert route["spec"]["parentRefs"] == gateway["parentRefs"]
        assert route["spec"]["hostnames"] == ["chat.example.org"]
        (rule,) = route["spec"]["rules"]
        path = {"type": "PathPrefix", "value": f"/{stage.namespace}/chat/{ordinal}"}
        assert rule == {"matches": [{"path": path}], "backendRefs": [{"name": name, "port": 6001}]}
        service = get("service", name, namespace=stage.namespace)
        assert service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == name

    stage.kubectl("scale", "imc", "chat", "--replicas=2")
    stage.ready()
    assert _routes(stage) == found, "scaling edits no route: controllers that reload cut WebSockets"

    stage.kubectl("patch", "httproute", "chat-0", "--type=merge", "-p", '{"spec":{"hostnames":["evil.example.org"]}}')
    stage.kubectl("delete", "httproute", "chat-1")
    stage.kubectl("annotate", "imc", "chat", "e2e=look")
    specs = {name: route["spec"] for name, route in found.items()}
    wait_for("the routes to be healed", lambda: {n: r["spec"] for n, r in _routes(stage).items()} == specs, 45)

    stage.patch({"replicas": 1, "exposure": {"maxOrdinals": 1}})
    wait_for("the route that is one too many to go", lambda: set(_routes(stage)) == {"chat-0", "chat-1"}, 30)
    stage.patch({"exposure": None})
    wait_for("all routes to go", lambda: not _routes(stage), 30)
    stage.ready()
