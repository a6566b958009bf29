# The helper over TLS, in both forms: certificates checked both ways, and files that rotate under a running helper.
# A small authority of the test's own signs. Only Debian's Redis 7 is built with TLS, so the other flavour is not tried.

import asyncio
import shutil
from typing import Any

import pytest

import imhelper
import imhelper.sync
from tests.support.authority import Authority
from tests.support.boot import Boot
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.redis_server import redis_binary
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis5


@pytest.fixture
def authority(tmp_path) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    return Authority(tmp_path / "authority")


@pytest.fixture
def tls_redis(tmp_path, processes, authority):
    """A Redis that speaks TLS only and asks its clients for a certificate; answers its plain-text side too."""
    certificate, key = authority.sign("server", "redis", "DNS:localhost,IP:127.0.0.1")
    port, plain = free_port(), free_port()
    options = ["--tls-port", port, "--port", plain, "--bind", "127.0.0.1", "--dir", tmp_path, "--save", ""]
    options += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.ca]
    server = Process("tls redis", [redis_binary("redis7"), *map(str, options)], tmp_path / "redis.log")
    processes(server)
    server.launch()
    wait_until(lambda: "eady to accept connections" in server.output or not server.running, 20)
    if not server.running and "tls" in server.output.lower():
        pytest.skip("this redis-server was built without TLS")
    boot = Boot(f"redis://127.0.0.1:{plain}", "im")
    boot.publish()
    yield port, boot
    boot.link.close()


@pytest.fixture(params=["asyncio", "blocking"])
async def connect(request, authority):
    """A function that asks for a URL through a helper of its own, or through the one given."""
    helpers: list[Any] = []

    async def connect(url: str, helper: Any = None, **options: Any) -> Any:
        blocking = request.param == "blocking"
        if helper is None:
            helper = (imhelper.sync if blocking else imhelper).ImHelper(url, **options)
            helpers.append(helper)
        if blocking:
            await asyncio.to_thread(helper.prev_connect_server, "ann")
        else:
            await helper.prev_connect_server("ann")
        return helper

    yield connect
    for helper in helpers:
        await (asyncio.to_thread(helper.close) if request.param == "blocking" else helper.close())


async def test_certificates_are_checked_both_ways(tls_redis, connect, authority):
    port, _ = tls_redis
    certificate, key = authority.sign("client", "client")
    files = {"ssl_ca_certs": authority.ca, "ssl_certfile": certificate, "ssl_keyfile": key}
    await connect(f"rediss://localhost:{port}", **files)
    query = "&".join(f"{name}={path}" for name, path in files.items())
    await connect(f"rediss://127.0.0.1:{port}?{query}")
    with pytest.raises(imhelper.RedisUnavailableError, match=r"(?i)certificate"):
        await connect(f"rediss://localhost:{port}", timeout=4, ssl_certfile=certificate, ssl_keyfile=key)
    with pytest.raises(imhelper.RedisUnavailableError):
        await connect(f"rediss://localhost:{port}", timeout=4, ssl_ca_certs=authority.ca)
    await connect(f"rediss://localhost:{port}?ssl_cert_reqs=none", ssl_certfile=certificate, ssl_keyfile=key)


async def test_a_certificate_of_another_host_is_refused(tls_redis, connect, authority):
    port, boot = tls_redis
    certificate, key = authority.sign("other", "redis", "DNS:elsewhere.test")
    client = dict(zip(("ssl_certfile", "ssl_keyfile"), authority.sign("client", "client"), strict=True))
    boot.link.command(None, "CONFIG", "SET", "tls-cert-file", certificate, "tls-key-file", key)
    with pytest.raises(imhelper.RedisUnavailableError, match=r"(?i)hostname|certificate"):
        await connect(f"rediss://localhost:{port}", timeout=4, ssl_ca_certs=authority.ca, **client)
    await connect(f"rediss://localhost:{port}?ssl_check_hostname=false", ssl_ca_certs=authority.ca, **client)


async def test_files_are_read_again_at_each_connection(tls_redis, connect, authority, tmp_path):
    port, boot = tls_redis
    second = Authority(tmp_path / "second")
    live = tmp_path / "live"
    live.mkdir()

    def install(of: Authority) -> None:
        certificate, key = of.sign("client", "client")
        for source, name in ((certificate, "tls.crt"), (key, "tls.key"), (of.ca, "ca.crt")):
            shutil.copy(source, live / name)

    install(authority)
    files = {"ssl_ca_certs": live / "ca.crt", "ssl_certfile": live / "tls.crt", "ssl_keyfile": live / "tls.key"}
    helper = await connect(f"rediss://localhost:{port}", **{k: str(v) for k, v in files.items()})
    certificate, key = second.sign("server", "redis", "DNS:localhost")
    settings = ("tls-cert-file", certificate, "tls-key-file", key, "tls-ca-cert-file", second.ca)
    boot.link.command(None, "CONFIG", "SET", *settings)
    install(second)
    boot.link.command(None, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await connect("", helper)
