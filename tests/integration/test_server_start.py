# How a server starts: it waits for Redis and says so, and it refuses in one line what can't work.
# What it refuses must leave no trace in Redis, for others serve there.

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imhelper import ImHelper
from tests.support.cluster import connected, token_for, url_on
from tests.support.imserver import ImServer
from tests.support.ports import free_port
from tests.support.raw import raw, request
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("redis_flavour", ["valkey"], indirect=True)


def complaint(server: ImServer, status: int) -> str:
    """The one line that the ended process has on standard error besides its log."""
    assert server.wait(20) == status, server.output
    lines = [line for line in server.output.splitlines() if line.startswith("imserver: ")]
    assert len(lines) == 1 and "Traceback" not in server.output, server.output
    return lines[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("IM_PORT", "seventy"), ("IM_LEASE_SECONDS", "-1"), ("IM_PREFIX", "a{b}"), ("IM_TOPOLOGY", "magic")),
        *(("IM_REDIS_URL", "redis://joe:hunter2@h:port"), ("IM_GRACE_SECONDS", "600"), ("IM_URL", "http://x/ws")),
    ],
)
async def test_a_bad_setting_stops_the_start_in_one_line(redis_flavour, spawn_imservers, variable, value):
    settings = {"IM_SERVER_NAME": "x", variable: value}
    [server] = spawn_imservers(1, "redis://127.0.0.1:1", ready=False, **settings)
    line = complaint(server, 2)
    assert line.startswith(f"imserver: {variable}") and "hunter2" not in server.output
    assert len(server.output.splitlines()) == 1


async def test_without_redis_it_waits_says_so_and_starts_when_redis_does(
    redis_flavour, tmp_path, processes, spawn_imservers
):
    (tmp_path / "late").mkdir()
    late = RedisServer(redis_flavour, tmp_path / "late")
    processes(late)
    [server] = spawn_imservers(1, late.url, ready=False)
    await eventually(lambda: "waiting for Redis" in server.output, 15)
    status, body = server.admin_get("/readyz")
    assert status == 503 and "waiting for Redis" in body
    assert server.admin_get("/healthz")[0] == 200
    assert server.metrics()["imserver_redis_up"] == 0
    async with raw(server.port) as connection:
        await connection.send(request("/ws?token=1." + "A" * 24))
        answer = await connection.response()
        assert answer.status == 503 and int(answer.fields["retry-after"]) > 0
    late.start()
    await asyncio.to_thread(server.wait_ready)
    async with ImHelper(late.url) as im, connected(server, im, "a") as connected_socket:
        await im.send_message("s", "a", "hello")
        assert await connected_socket.recv() == "hello"
    assert server.metrics()["imserver_redis_up"] == 1


async def test_a_server_that_waits_for_redis_ends_when_it_is_told_to(redis_flavour, spawn_imservers):
    [server] = spawn_imservers(1, f"redis://127.0.0.1:{free_port()}", ready=False)
    await eventually(lambda: "waiting for Redis" in server.output, 15)
    assert await server.stop_async() == 0
    assert "Traceback" not in server.output


async def test_other_slots_than_the_published_ones_stop_the_start_and_disturb_nobody(redis_server, spawn_imservers):
    [first] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_SLOTS=100)
    async with ImHelper(redis_server.url) as im, connected(first, im, "a") as open_one:
        epoch = (await im.topology()).epoch
        for name in ("other", first.name):
            [wrong] = spawn_imservers(1, redis_server.url, ready=False, IM_SLOTS=128, IM_SERVER_NAME=name)
            line = await asyncio.to_thread(complaint, wrong, 1)
            assert "IM_SLOTS must be 100" in line and "not '128'" in line
        assert [s.name for s in await im.servers()] == [first.name]
        assert (await im.topology()).epoch == epoch and (await im.topology()).slots == 100
        await im.send_message("s", "a", "undisturbed")
        assert await open_one.recv() == "undisturbed"
        [right] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url)
        async with connected(right, im, "b") as socket:
            await im.send_message("s", "b", "the published number holds")
            await socket.recv()


@pytest.mark.parametrize("variable", ["IM_PORT", "IM_ADMIN_PORT"])
async def test_a_port_that_is_taken_stops_the_start_in_one_line(redis_server, spawn_imservers, variable):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [server] = spawn_imservers(1, redis_server.url, ready=False, **{variable: port})
        line = await asyncio.to_thread(complaint, server, 1)
    assert "listen" in line and "in use" in line and str(port) in line
    assert redis_server.command("KEYS", "*") == []


async def test_a_topology_of_another_format_stops_the_start_and_names_both(redis_server, spawn_imservers):
    redis_server.command("HSET", "{im}:topo", "epoch", 5, "record", '{"format":9,"slots":128}')
    [server] = spawn_imservers(1, redis_server.url, ready=False)
    line = await asyncio.to_thread(complaint, server, 1)
    assert "format 9" in line and "format 1" in line


async def test_the_newer_of_two_servers_of_one_name_wins_and_the_older_ends(redis_server, spawn_imservers):
    [old] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_SERVER_NAME="twin", IM_GRACE_SECONDS=1)
    async with ImHelper(redis_server.url) as im, connected(old, im, "a") as lost, connected(old, im, "b"):
        await im.join_chan("a", "room")
        [new] = await asyncio.to_thread(spawn_imservers, 1, redis_server.url, IM_SERVER_NAME="twin", IM_GRACE_SECONDS=1)
        assert (await lost.closed(15))[0] == 1012
        assert await old.wait_async() == 75
        assert "fenced" in old.output and "Traceback" not in old.output
        async with connected(new, im, "a") as again:
            await im.send_chan_message("s", "room", "still a member")
            assert await again.recv() == "still a member"

            async def b_is_gone() -> bool:
                return await im.get_client_list_by_online() == ["a"]

            await eventually(b_is_gone, 15)
        assert [s.name for s in await im.servers()] == ["twin"]


async def test_it_warns_of_a_redis_that_evicts_and_of_misspelt_variables(spawn_redis, spawn_imservers):
    redis = spawn_redis("--maxmemory-policy", "allkeys-lru")
    [server] = await asyncio.to_thread(spawn_imservers, 1, redis.url, IM_PROT=7)
    assert "noeviction" in server.output and "IM_PROT is not a setting" in server.output


async def test_secrets_reach_no_log_at_any_level(spawn_redis, spawn_imservers, tmp_path):
    redis = spawn_redis("--requirepass", "hunter2-secret")
    password = tmp_path / "password"
    password.write_text("hunter2-secret\n")
    [server] = await asyncio.to_thread(
        spawn_imservers, 1, redis.url, IM_REDIS_PASSWORD_FILE=password, IM_LOG_LEVEL="debug", IM_LOG_FORMAT="json"
    )
    async with ImHelper(redis.url, password="hunter2-secret") as im:
        tokens = [await token_for(im, "a") for _ in range(3)]
        async with connected(server, im, "a", envelope=True):
            for head in (
                request(f"/ws?token={tokens[0]}"),
                request(f"/x?token={tokens[1]}"),
                b"bad" + request(tokens[2]),
            ):
                async with raw(server.port) as connection:
                    await connection.send(head)
                    await connection.response()
        refused = await url_on(server, im, "b")
        redis.kill()
        async with raw(server.port) as connection:
            await connection.send(request(refused[refused.index("/ws") :]))
            await connection.response()
        await eventually(lambda: "unavailable" in server.output, 15)
    await server.stop_async(30)
    assert "hunter2" not in server.output
    for secret in (*tokens, refused.partition("token=")[2]):
        assert secret not in server.output and secret.partition(".")[2] not in server.output


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--version", 0), ("--port=7001", 2)])
async def test_arguments_start_no_server(redis_flavour, argument, status):
    command = [sys.executable, "-m", "imserver", argument]
    ended = await asyncio.to_thread(
        subprocess.run, command, env={}, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == status
    assert "imserver" in (ended.stdout if status == 0 else ended.stderr)


async def test_the_console_script_is_the_same_program(redis_flavour):
    script = Path(sys.executable).with_name("imserver")
    ended = await asyncio.to_thread(
        subprocess.run, [script], env={"IM_PORT": "x"}, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr == "imserver: IM_PORT must be a whole number from 1 to 65535, not 'x'\n"
