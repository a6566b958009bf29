# `python -m imhelper` as an on-call person uses it: tables, JSON, exit status, one line for an error, no secrets.
# The cluster is scripts only (`Boot`).

import json
import os
import subprocess
import sys

import pytest

from imhelper.core.slots import slot_of
from imhelper.sync import ImHelper
from tests.support.boot import Boot

pytestmark = pytest.mark.redis5


@pytest.fixture
def boot(redis_server):
    boot = Boot(redis_server.url, "shop", connections=2)
    boot.publish()
    with ImHelper(redis_server.url, prefix="shop") as helper:
        for metadata in ("phone", "lap\ttop"):
            boot.connect(helper.prev_connect_server("ann", metadata))
        boot.connect(helper.prev_connect_server("bob"))
        helper.join_chan("ann", "news")
        helper.join_chan("bob", "news")
        helper.send_message("bob", "ann", "hello")
    yield boot
    boot.link.close()


def run(redis_server, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("IM_")}
    return subprocess.run(
        [sys.executable, "-m", "imhelper", *arguments],
        env={**inherited, "IM_REDIS_URL": redis_server.url, "IM_PREFIX": "shop", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def answer(redis_server, *arguments: str):
    """The JSON of a command; its table must say the same names."""
    told = run(redis_server, *arguments, "--json")
    assert told.returncode == 0, told.stderr
    table = run(redis_server, *arguments)
    assert table.returncode == 0 and table.stdout.strip() and not table.stderr
    assert "token" not in table.stdout + told.stdout
    return json.loads(told.stdout), table.stdout


def test_servers_and_topology(redis_server, boot):
    [server], table = answer(redis_server, "servers")
    assert (server["name"], server["url"], server["state"], server["connections"]) == ("s0", boot.url, "active", 2)
    assert server["lease_age"] >= 0
    assert table.splitlines()[0].split("  ")[0] == "NAME" and boot.url in table.splitlines()[1]
    topology, table = answer(redis_server, "topology")
    assert topology["slots"] == 128 and len(topology["table"]) == 128 and topology["epoch"] > 0
    assert "max_payload_bytes=65536" in table and boot.url in table


def test_a_client_a_channel_and_a_slot(redis_server, boot):
    client, table = answer(redis_server, "client", "ann")
    assert client["online"] and client["table_server"] == "s0" and client["chans"] == ["news"]
    assert sorted(s["metadata"] for s in client["sockets"]) == ["lap\ttop", "phone"]
    assert {s["server"] for s in client["sockets"]} == {"s0"} and "online" in table and "lap\\ttop" in table
    offline, table = answer(redis_server, "client", "nobody")
    assert not offline["online"] and offline["sockets"] == [] and "offline" in table
    chan, table = answer(redis_server, "chan", "news")
    assert chan["online"] == 2 and sorted(chan["members"]) == ["ann", "bob"] and chan["all_shown"]
    slot, table = answer(redis_server, "slot", str(slot_of("ann", 128)))
    assert slot["table_server"] == "s0" and slot["log_entries"] >= 2 and slot["log_bytes"] > 0
    assert slot["last_id"] and slot["last_id"] in table
    empty, _ = answer(redis_server, "slot", str((slot_of("ann", 128) + 1) % 128))
    assert "log_entries" in empty


def test_send(redis_server, boot):
    sent, _ = answer(redis_server, "send", "ops", "maintenance", "ann", "bob")
    assert len(sent["id"]) == 22
    answer(redis_server, "send", "ops", '{"x": 1}', "--parse", "--chan", "news")
    messages = [(m[0], sorted(m[1]), m[2], m[3]) for m in boot.sent() if m[0] == "ops"]
    assert messages.count(("ops", ["ann", "bob"], None, "maintenance")) == 2
    assert messages.count(("ops", [], "news", {"x": 1})) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("slot", "128"), "slot must be 0 to 127"),
        (("client", ""), "client_id must be 1 to 128"),
        (("send", "ops", "m"), "either receivers or --chan"),
        (("send", "ops", "{", "ann", "--parse"), "not JSON"),
        (("topology", "--prefix", "other"), "no topology is published under prefix 'other'"),
        (("servers", "--redis-url", "http://x"), "redis_url must begin"),
        (("servers", "--redis-url", "redis://:hush@127.0.0.1:1", "--timeout", "0.3"), "did not answer within 0.3 s"),
    ],
)
def test_errors_are_one_line_and_status_1(redis_server, boot, arguments, text):
    told = run(redis_server, *arguments)
    assert told.returncode == 1 and not told.stdout
    assert text in told.stderr and len(told.stderr.splitlines()) == 1 and "hush" not in told.stderr


def test_options_may_stand_before_the_command_or_after_it(redis_server, boot):
    said = ["--redis-url", redis_server.url, "--prefix", "shop", "--json"]
    for arguments in ([*said, "client", "ann"], ["client", *said, "ann"], [*said[:4], "client", "ann", *said[4:]]):
        told = run(redis_server, *arguments, IM_REDIS_URL="redis://127.0.0.1:1", IM_PREFIX="none")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["client"] == "ann"
    assert run(redis_server, "--timeout", "0", "client", "ann").stderr.startswith("imhelper: timeout must be")


def test_bad_usage_is_status_2(redis_server):
    assert run(redis_server, "nonsense").returncode == run(redis_server, "slot", "x").returncode == 2


def test_the_password_may_come_from_a_file(spawn_redis, tmp_path):
    server = spawn_redis("--requirepass", "hush-hush")
    secret = tmp_path / "password"
    secret.write_text("hush-hush\n")
    told = run(server, "servers", "--json", IM_REDIS_PASSWORD_FILE=str(secret))
    assert (told.returncode, json.loads(told.stdout)) == (0, [])
    refused = run(server, "servers")
    assert refused.returncode == 1 and "password is wrong or missing" in refused.stderr
