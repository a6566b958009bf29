# The web chat with a password of Redis that is held by a file, as a mounted Secret is: read anew when it was rotated.
# And a setting that names no file stops the start.

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.conftest import SpawnRedis
from tests.support.process import Process
from tests.support.webchat import ROOT, WebChat, calling


@pytest.fixture
def redis_flavour() -> str:
    """The service never speaks to Redis itself, so one flavour says it all."""
    return "valkey"


async def test_a_rotated_password_is_read_again(
    spawn_redis: SpawnRedis, tmp_path: Path, processes: Callable[[Process], None]
):
    server = spawn_redis()
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", "first")
    secret = tmp_path / "password"
    secret.write_text("first\n")
    webchat = WebChat(server.url, tmp_path, IM_REDIS_PASSWORD_FILE=str(secret))
    processes(webchat)
    webchat.start()
    async with calling(webchat) as service:
        await service.post("/ws/get-channels")
        with redis.Redis.from_url(server.url, password="first") as admin:
            secret.write_text("second\n")
            admin.config_set("requirepass", "second")
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await service.post("/ws/get-channels")
    assert "second" not in webchat.output


@pytest.mark.parametrize("name", ["IM_REDIS_PASSWORD_FILE", "IM_REDIS_CA_FILE", "IM_REDIS_KEY_FILE"])
def test_a_file_that_is_not_there_stops_the_start(name, tmp_path):
    missing = str(tmp_path / "missing")
    command = [sys.executable, "-m", "examples.webchat"]
    done = subprocess.run(
        command, cwd=ROOT, env={name: missing}, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert name in done.stderr and missing in done.stderr
