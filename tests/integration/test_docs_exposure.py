# The nginx of docs/exposure.md, as it stands there, in front of a real server: its names are asked for while it runs.
# The DNS of the cluster is one of the test's own, which has every name on this machine.

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from imhelper import ImHelper
from tests.support import docs
from tests.support.nginx import Nginx, listens
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.ws import open_socket

A = 1


class Dns(asyncio.DatagramProtocol):
    """Answers each question for an address with 127.0.0.1 (RFC 1035), and notes the names."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        self.asked.add(".".join(labels))
        question = data[12 : at + 5]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        answer = struct.pack("!HHHIH4s", 0xC00C, A, 1, 5, 4, bytes((127, 0, 0, 1))) if kind == A else b""
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if answer else 0, 0, 0)
        self.transport.sendto(head + question + answer, addr)


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Dns, local_addr=("127.0.0.1", 0))
    yield protocol
    transport.close()


async def test_clients_reach_their_server_through_the_documented_proxy(
    dns, redis_server, spawn_imservers, tmp_path, processes
):
    port = free_port()
    url = f"ws://127.0.0.1:{port}/shop/chat/3/ws"
    (server,) = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_URL=url)
    (snippet,) = docs.blocks(docs.read("docs/exposure.md"), "nginx")
    own = f"resolver 127.0.0.1:{dns.transport.get_extra_info('sockname')[1]}"
    for theirs, ours in {"resolver kube-dns.kube-system.svc.cluster.local": own, ":6001;": f":{server.port};"}.items():
        assert theirs in snippet
        snippet = snippet.replace(theirs, ours)
    proxy = Nginx(f"server {{\nlisten 127.0.0.1:{port};\n{snippet}\n}}", tmp_path)
    processes(proxy)
    proxy.launch()
    await eventually(lambda: listens(port), 10, "the proxy")
    async with ImHelper(redis_server.url) as im:
        given = await im.prev_connect_server("alice")
        assert given.startswith(url)
        async with open_socket(given, envelope=True) as alice:
            assert (await alice.recv_kind("hello"))["server"] == server.name
            await im.send_message("bob", ["alice"], "through the proxy")
            assert (await alice.recv_kind("msg"))["data"] == "through the proxy"
    assert dns.asked == {"chat-3.shop.svc.cluster.local"}
    assert await proxy.stop_async() == 0
