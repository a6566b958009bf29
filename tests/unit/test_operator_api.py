# A cluster that does not know a kind says so in plain text, with which the client makes no ApiError.

from collections.abc import AsyncIterator

import httpx2
import pytest
from lightkube import ApiError, AsyncClient
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User

from imoperator import release
from imoperator.api import Api
from imoperator.names import Key
from imoperator.settings import Settings

ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "chat-0", "namespace": "ns"},
}


def answer(request: httpx2.Request) -> httpx2.Response:
    """As the API server of a cluster without the Gateway API, without the CRD, and without any Lease."""
    path = request.url.path
    if "gateway.networking.k8s.io" in path or "imcluster.io" in path:
        return httpx2.Response(404, headers={"Content-Type": "text/plain"}, text="404 page not found\n")
    if "/leases/" in path:
        return httpx2.Response(404, json={"kind": "Status", "code": 404, "message": "not found"})
    return httpx2.Response(200, json={"items": [], "metadata": {}})


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    server = Cluster(server="http://cluster")
    config = SingleConfig(context_name="x", context=Context(cluster="x"), cluster=server, user=User(token="x"))
    made = AsyncClient(config=config, transport=httpx2.MockTransport(answer), field_manager="x")
    yield made
    await made.close()


async def test_there_are_no_routes_where_the_kind_is_unknown(client):
    assert await Api(client).children(Key("ns", "chat"), routes=True) == {}


async def test_a_route_that_cant_be_is_refused_with_a_sentence(client):
    with pytest.raises(ApiError, match=r"^this cluster does not know HTTPRoute of gateway\.networking\.k8s\.io/v1$"):
        await Api(client).apply(ROUTE)


async def test_uninstalling_after_the_crd_has_gone_finds_nothing_to_release(client, monkeypatch):
    monkeypatch.setattr(release, "RENEW_SECONDS", 0)
    assert await release.release(Settings(identity="hook"), client) == 0
