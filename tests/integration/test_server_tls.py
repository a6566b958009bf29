# Servers and helpers on a Redis that speaks TLS, with the user of deploy/imcluster.acl, over failures.
# Only Debian's Redis 7 is built with TLS, so the other flavour is not tried.

import asyncio
import shutil
from typing import Any

import pytest
import redis

from imhelper import ImHelper
from tests.support import docs
from tests.support.authority import Authority
from tests.support.cluster import connected
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("redis_flavour", ["redis7"], indirect=True)
# redis-py tells its name at connect and takes a refusal.
HARMLESS = {"client|setinfo"}


async def test_failures_and_a_new_password_over_tls_with_the_least_rights(spawn_redis, spawn_imservers, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("server", "redis", "DNS:localhost,IP:127.0.0.1")
    mine, my_key = authority.sign("client", "client")
    acl, password = tmp_path / "users.acl", tmp_path / "password"

    def set_password(text: str) -> None:
        acl.write_text(docs.read("deploy/imcluster.acl").replace(" off resetpass ", f" on >{text} "))
        password.write_text(text)

    set_password("first-secret")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key]
    options += ["--tls-ca-cert-file", authority.ca, "--aclfile", str(acl), "--appendfsync", "always"]
    try:
        server = await asyncio.to_thread(spawn_redis, *options)
    except AssertionError as error:
        if "tls" in str(error).lower():
            pytest.skip("this redis-server was built without TLS")
        raise
    url = f"rediss://localhost:{port}"
    settings = {"IM_REDIS_USERNAME": "imcluster", "IM_REDIS_PASSWORD_FILE": password, "IM_REDIS_CA_FILE": authority.ca}
    settings |= {"IM_REDIS_CERT_FILE": mine, "IM_REDIS_KEY_FILE": my_key, "IM_GRACE_SECONDS": 5}
    first, second = await asyncio.to_thread(spawn_imservers, 2, url, **settings)
    files: dict[str, Any] = {"ssl_ca_certs": authority.ca, "ssl_certfile": mine, "ssl_keyfile": my_key}
    async with (
        ImHelper(url, username="imcluster", password=password.read_text, timeout=20, **files) as im,
        connected(first, im, "al", envelope=True) as al,
        connected(second, im, "bo") as bo,
    ):
        await al.recv_kind("hello")

        async def both_get(text: str) -> None:
            await im.send_message("x", ["al", "bo"], text)
            assert (await al.recv_kind("msg", 20))["data"] == await bo.recv(20) == text

        def kill_clients() -> None:
            server.command("CLIENT", "KILL", "USER", "imcluster")

        await both_get("before")
        await asyncio.to_thread(kill_clients)
        await both_get("connections were killed")
        await asyncio.to_thread(server.kill_and_restart)
        await both_get("Redis was killed")
        # A password rotates: the file first, then the user; what is open is cut.
        set_password("second-secret")
        server.command("ACL", "LOAD")
        await asyncio.to_thread(kill_clients)
        await both_get("a new password")
        async with connected(second, im, "al", envelope=True, since=str(await _pos(al))) as again:
            assert (await again.recv_kind("hello"))["recovered"] is True
        second.kill()

        async def only_al() -> bool:
            return await im.get_client_list_by_online() == ["al"]

        await eventually(only_al, 30, "the rights suffice for a reclaim and for what follows")
    with redis.Redis(port=server.port, decode_responses=True) as client:
        assert {entry["object"] for entry in client.acl_log(1000)} - HARMLESS <= {"auth"}
    for log in (first.output, second.output, server.output):
        assert "first-secret" not in log and "second-secret" not in log


async def _pos(socket) -> str:
    await socket.send_json({"t": "ping"})
    pos: str = (await socket.recv_kind("pong"))["pos"]
    return pos
