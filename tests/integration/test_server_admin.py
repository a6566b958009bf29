# The admin port: health, readiness, and every metric of contract part 6 with a value that means what it says.
# Prometheus' own parser reads the page, so that a scrape would too.

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imhelper import ImHelper
from tests.support.cluster import connected, new_name
from tests.support.raw import PING, frame, raw, request
from tests.support.waiting import eventually

GAUGES = (
    *("connections", "clients", "channels", "write_buffer_bytes", "slots_owned", "topology_epoch", "redis_up"),
    *("reader_lag_seconds", "draining", "max_connections", "loop_lag_seconds", "build_info"),
)
COUNTERS = {
    "handshakes": "result",
    "disconnects": "code",
    "messages_received": "kind",
    "messages_delivered": "kind",
    "resumes": "result",
    "receipts": "status",
    **dict.fromkeys(("slow_consumers", "gaps", "moves", "fenced", "reclaims"), ""),
}


def families(server: Any) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(server.admin_get("/metrics")[1])}


async def test_every_metric_of_the_contract_is_there_with_its_type_and_labels(cluster, im):
    async with connected(cluster.servers[0], im, new_name()):
        pass
    await eventually(lambda: 'imserver_disconnects_total{code="1000"}' in cluster.servers[0].metrics())
    found = families(cluster.servers[0])
    for name in GAUGES:
        assert found[f"imserver_{name}"].type == "gauge", name
    for name, label in COUNTERS.items():
        family = found[f"imserver_{name}"]
        assert family.type == "counter" and family.samples
        assert {tuple(s.labels) for s in family.samples} == {(label,) if label else ()}
        assert {s.name for s in family.samples} == {f"imserver_{name}_total"}
    assert found["imserver_delivery_seconds"].type == "histogram"
    assert all(f.documentation for f in found.values())


async def test_the_values_follow_what_happens(redis_server, spawn_imservers):
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_GRACE_SECONDS=1, IM_SLOTS=64)
    idle = server.metrics()
    assert idle["imserver_connections"] == idle["imserver_clients"] == idle["imserver_channels"] == 0
    assert idle["imserver_slots_owned"] == 64 and idle["imserver_redis_up"] == 1 and idle["imserver_draining"] == 0
    # A rate can be taken of what has not happened yet.
    for sample in ('handshakes{result="ok"}', 'handshakes{result="draining"}', 'disconnects{code="4001"}'):
        assert idle["imserver_" + sample.replace("{", "_total{")] == 0
    assert 0 <= idle["imserver_reader_lag_seconds"] < 30
    async with ImHelper(redis_server.url) as im:
        assert idle["imserver_topology_epoch"] == (await im.topology()).epoch
        async with (
            connected(server, im, "a") as one,
            connected(server, im, "a") as two,
            connected(server, im, "b", envelope=True) as three,
        ):
            pos = (await three.recv_kind("hello"))["pos"]
            for client, chan in (("a", "x"), ("a", "y"), ("b", "x")):
                await im.join_chan(client, chan)
            await im.send_chan_message("s", "x", "1")
            await im.send_message("b", "a", "2", receipt=True)
            await im.send_message("b", "nobody", "3", receipt=True)
            assert [await one.recv() for _ in range(2)] == [await two.recv() for _ in range(2)]
            assert [(await three.recv_json())["t"] for _ in range(3)] == ["msg", "receipt", "receipt"]
            now = server.metrics()
            assert (now["imserver_connections"], now["imserver_clients"], now["imserver_channels"]) == (
                3,
                2,
                3 - 1 + 1 - 1 or 2,
            )
            assert now['imserver_messages_delivered_total{kind="channel"}'] == 3
            assert now['imserver_messages_delivered_total{kind="message"}'] == 2
            assert now['imserver_messages_delivered_total{kind="receipt"}'] == 2
            assert now['imserver_messages_received_total{kind="message"}'] >= 1
            assert (
                now['imserver_receipts_total{status="delivered"}']
                == now['imserver_receipts_total{status="offline"}']
                == 1
            )
            assert now["imserver_delivery_seconds_count"] >= 4
            assert now["imserver_delivery_seconds_sum"] >= 0
            assert now['imserver_delivery_seconds_bucket{le="+Inf"}'] == now["imserver_delivery_seconds_count"]
        async with connected(server, im, "b", envelope=True, since=str(pos)) as again:
            await again.recv_kind("hello")
        async with connected(server, im, "b", envelope=True, since="nonsense"):
            pass
        async with raw(server.port) as connection:
            await connection.send(request("/ws?token=x"))
            await connection.response()
        await eventually(lambda: server.metrics()["imserver_connections"] == 0)
        end = server.metrics()
        assert end['imserver_handshakes_total{result="ok"}'] == 5
        assert end['imserver_handshakes_total{result="unauthorized"}'] == 1
        assert end['imserver_resumes_total{result="recovered"}'] == end['imserver_resumes_total{result="lost"}'] == 1
        assert sum(v for n, v in end.items() if n.startswith("imserver_disconnects_total")) == 5
        assert end["imserver_clients"] == end["imserver_channels"] == 0


async def test_every_reclaimed_socket_is_counted(redis_server, spawn_imservers):
    settings = {"IM_LEASE_SECONDS": 1, "IM_GRACE_SECONDS": 0}
    doomed, other = await asyncio.to_thread(spawn_imservers, 2, redis_server.url, **settings)
    async with ImHelper(redis_server.url) as im, connected(doomed, im, "a"), connected(doomed, im, "b"):
        doomed.kill()

        async def nobody() -> bool:
            return await im.get_online_count() == 0

        await eventually(nobody, timeout=20)
        assert other.metrics()["imserver_reclaims_total"] == 2


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose", "/metrics", "/"])
async def test_the_admin_port_answers_http_only_and_only_what_it_knows(cluster, path):
    server = cluster.servers[0]
    status, body = server.admin_get(path)
    assert status == (404 if path == "/" else 200)
    if "z" in path:
        assert json.loads(body) == {"ok": True, "problems": []}
    async with raw(server.admin_port) as connection:
        # Not even with an upgrade does it become a WebSocket.
        await connection.send(request(path) + frame(PING))
        assert (await connection.response()).status == status


async def test_the_public_port_shows_none_of_it(cluster):
    for path in ("/metrics", "/healthz", "/readyz"):
        async with raw(cluster.servers[0].port) as connection:
            await connection.send(request(path, {"Host": "h"}))
            assert (await connection.response()).status == 404


async def test_nonsense_on_the_admin_port_stops_nothing(cluster):
    server = cluster.servers[1]
    for data in (
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    ):
        async with raw(server.admin_port) as connection:
            await connection.send(data)
            await connection.ended()
    assert server.ready()
