# An operator's table marks a server as draining: it moves its clients and goes on, and takes clients again when the
# table has it as active. Its lease tells why it drains, so that the operator does not take the echo for a reason.

import asyncio
import json
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus

from imhelper import ImHelper
from imhelper._backend.aio import Link
from imhelper.core import scripts
from imhelper.core.leases import Lease, parse_leases
from imhelper.core.planner import plan_table
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.topology import ACTIVE, DRAINING, ServerEntry, Topology
from tests.support.cluster import url_on
from tests.support.waiting import eventually
from tests.support.ws import open_socket

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


class Operator:
    """Publishes as the operator does."""

    def __init__(self, redis_url: str) -> None:
        self.link = Link(parse_redis_url(redis_url), prefix="im")
        self.old: Topology | None = None

    async def publish(self, servers: dict[str, tuple[str, str]]) -> None:
        """Servers by name, with URL and state."""
        await self.link.eval(scripts.load("publisher"), None, "take", "operator", "uid", "test", 60000, 0)
        entries = tuple(ServerEntry(name, url, state) for name, (url, state) in servers.items())
        new = Topology(0, 128, 1, entries, plan_table(entries, self.old, 128))
        epoch = self.old.epoch if self.old else ""
        reply = await self.link.eval(scripts.load("publish"), None, "operator", "uid", "test", epoch, 0, new.to_json())
        assert reply[0], reply
        self.old = replace(new, epoch=int(reply[1]))

    async def leases(self) -> dict[str, Lease]:
        now_ms, _, _, flat = await self.link.eval(scripts.load("view"), None, "")
        return parse_leases(flat, int(now_ms))


async def test_a_server_drains_while_the_table_says_so_and_only_then(redis_server, spawn_imservers):
    operator = Operator(redis_server.url)
    await operator.publish({})
    first, second = await asyncio.to_thread(
        spawn_imservers, 2, redis_server.url, ready=False, IM_TOPOLOGY="operator", IM_DRAIN_RATE=100
    )
    for server in (first, second):
        await asyncio.to_thread(server.wait_ready)
    both = {first.name: (first.url, ACTIVE), second.name: (second.url, ACTIVE)}
    await operator.publish(both)
    async with ImHelper(redis_server.url) as im:
        url = await url_on(first, im, "client")
        async with open_socket(url, envelope=True) as socket:
            await socket.recv_kind("hello")
            await operator.publish(both | {first.name: (first.url, DRAINING)})
            moved = await socket.recv_kind("move")
            assert moved["url"].startswith(f"{second.url}?token=")

            async def told() -> bool:
                lease = (await operator.leases())[first.name]
                return lease.state == DRAINING and bool(lease.report["drain"] == "topology")

            await eventually(told, 10, "the lease to tell that the table is why")
            assert first.running
            status, body = await asyncio.to_thread(first.admin_get, "/readyz")
            assert status == 503 and "draining" in json.loads(body)["problems"]
            with pytest.raises(InvalidStatus, match="503"):
                async with open_socket(moved["url"].replace(second.url, first.url)):
                    pass
            await operator.publish(both)

            async def active_again() -> bool:
                return not (await operator.leases())[first.name].report["drain"]

            await eventually(active_again, 10, "the server to be active again")
        async with open_socket(await url_on(first, im, "client"), envelope=True) as socket:
            assert (await socket.recv_kind("hello"))["server"] == first.name
        first.terminate()

        async def ends() -> bool:
            lease = (await operator.leases()).get(first.name)
            return lease is None or bool(lease.report["drain"] == "end")

        await eventually(ends, 10, "the lease to tell that the process ends")
    await operator.link.close()


async def test_servers_that_publish_their_own_table_do_not_obey_its_echo(redis_server, spawn_imservers):
    (first,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
    await asyncio.to_thread(first.stop)
    await asyncio.to_thread(first.start)
    async with ImHelper(redis_server.url) as im, open_socket(await url_on(first, im, "c"), envelope=True) as socket:
        await socket.recv_kind("hello")
        assert (await asyncio.to_thread(first.admin_get, "/readyz"))[0] == 200


async def test_a_record_that_no_release_near_can_read_ends_no_running_server(redis_server, spawn_imservers):
    operator = Operator(redis_server.url)
    await operator.publish({})
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis_server.url, IM_TOPOLOGY="operator", IM_LEASE_SECONDS=1, IM_DRAIN_TIMEOUT_SECONDS=1
    )
    await operator.publish({server.name: (server.url, ACTIVE)})
    async with ImHelper(redis_server.url) as im, open_socket(await im.prev_connect_server("client")) as socket:
        good = await eventually(lambda: server.metrics()["imserver_topology_epoch"])
        redis_server.command("HSET", "{im}:topo", "record", '{"format":9}', "epoch", "9999999999999")
        await eventually(lambda: server.metrics()["imserver_topology_refused"] == 1)
        beats = [int(redis_server.command("HGET", "{im}:servers", server.name).split(b"\n")[1])]
        await eventually(
            lambda: int(redis_server.command("HGET", "{im}:servers", server.name).split(b"\n")[1]) > beats[0] + 10
        )
        assert server.ready() and server.metrics()["imserver_topology_epoch"] == good
        assert server.output.count("topology 9999999999999 is passed over") == 1
        # One that starts can't know better, and says why.
        [other] = spawn_imservers(1, redis_server.url, ready=False, IM_TOPOLOGY="operator")
        assert await other.wait_async() == 1
        assert "imserver: the topology in Redis has format 9" in other.output
        operator.old = replace(operator.old, epoch=9999999999999) if operator.old else None
        await operator.publish({server.name: (server.url, ACTIVE)})
        await eventually(lambda: server.metrics()["imserver_topology_refused"] == 0)
        await im.send_message("s", "client", "still here")
        assert await socket.recv() == "still here"
        redis_server.command("HSET", "{im}:topo", "record", '{"format":9}', "epoch", "99999999999999")
        assert await server.stop_async() == 0
    assert "Traceback" not in server.output
