# deploy/ against the code: what the unit, the compose file, the ACL and the Redis settings promise to fit.
# Whether the ACL really suffices is tried in tests/integration/test_docs_deploy.py.

import configparser
import re
import subprocess
from collections import defaultdict

import pytest

from imserver.__main__ import EXIT_SETTING
from imserver.settings import load_settings, unknown_settings
from tests.support import docs

DEFAULTS = load_settings({})
LUA = docs.ROOT / "helper/src/imhelper/lua"
# What a restart of the process may take beyond the drain.
SPARE_SECONDS = 30


def _unit() -> dict[str, list[str]]:
    """The unit's settings: name → values, in order. systemd repeats names, so configparser alone won't do."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in docs.read("deploy/systemd/imserver@.service").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name].append(value)
    return values


def test_the_unit_is_well_formed():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(docs.read("deploy/systemd/imserver@.service"))
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_the_unit_waits_for_the_drain_and_starts_again_what_may_succeed():
    unit = _unit()
    assert unit["KillSignal"] == ["SIGTERM"]
    assert float(unit["TimeoutStopSec"][0]) >= DEFAULTS.drain_timeout_seconds + SPARE_SECONDS
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(EXIT_SETTING)]
    assert int(unit["LimitNOFILE"][0]) > DEFAULTS.max_connections + 500


def test_the_units_instances_have_names_that_are_allowed():
    (assignment,) = _unit()["Environment"]
    variable, _, value = assignment.partition("=")
    name = value.replace("%H", "host.example.org").replace("%i", "1")
    assert load_settings({variable: name}).server_name == name


def test_the_documented_environment_files_are_settings(tmp_path):
    password = tmp_path / "redis-password"
    password.write_text("secret")
    environment: dict[str, str] = {}
    for block in docs.blocks(docs.read("docs/deploy.md"), "ini"):
        pairs = (line.split("=", 1) for line in block.splitlines() if not line.startswith("#"))
        environment |= dict(pairs)
    environment["IM_REDIS_PASSWORD_FILE"] = str(password)
    settings = load_settings(environment)
    assert unknown_settings(environment) == []
    assert (settings.topology, settings.redis_username, settings.port) == ("self", "imcluster", 6001)


def test_systemd_accepts_the_unit(tmp_path):
    text = docs.read("deploy/systemd/imserver@.service").replace("/opt/imserver/bin/imserver", "/bin/true")
    for name in ("imserver@.service", "imserver@1.service"):
        (tmp_path / name).write_text(text)
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / "imserver@1.service")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no systemd-analyze on this machine")
    # It warns of the machine's other units, too.
    mine = [line for line in done.stderr.splitlines() if "imserver@" in line]
    assert (done.returncode, mine) == (0, [])


def test_the_compose_file_fits_the_settings():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the compose file is not parsed")
    services = yaml.safe_load(docs.read("deploy/compose.yaml"))["services"]
    servers = {name: service for name, service in services.items() if name.startswith("im-")}
    assert len(servers) == 3
    for name, service in servers.items():
        environment = {
            k: v.replace("${PUBLIC_HOST:-127.0.0.1}", "127.0.0.1") for k, v in service["environment"].items()
        }
        settings = load_settings(environment)
        assert settings.server_name == name
        # The published port is the one that clients are told.
        public, _, inner = service["ports"][0].partition(":")
        assert (settings.url, settings.port) == (f"ws://127.0.0.1:{public}/ws", int(inner))
        assert service["ports"][1].endswith(f":{settings.admin_port}")
        seconds = float(service["stop_grace_period"].removesuffix("s"))
        assert seconds >= settings.drain_timeout_seconds + SPARE_SECONDS
        assert service["ulimits"]["nofile"]["soft"] > settings.max_connections + 500
        assert settings.redis_url.startswith("redis://valkey:")
    assert "./redis.conf:/etc/imcluster/redis.conf:ro" in services["valkey"]["volumes"]


def _allowed() -> set[str]:
    (line,) = docs.read("deploy/imcluster.acl").splitlines()
    assert line.startswith("user imcluster off resetpass ")
    assert "-@all" in line.split() and "+@" not in line and "~*" not in line.split() and "&*" not in line.split()
    return {word for word in line.split() if word.startswith("+")}


def test_the_acl_allows_every_command_of_the_scripts():
    used = set()
    for path in LUA.glob("*.lua"):
        for command, first in re.findall(r"redis\.call\('([A-Z]+)'(?:, '([A-Z]+)')?", path.read_text("utf-8")):
            used.add(f"+{command.lower()}|{first.lower()}" if command == "MEMORY" else f"+{command.lower()}")
    assert used <= _allowed()


def test_the_acl_allows_nothing_that_no_source_names():
    sources = [*LUA.glob("*.lua")]
    for package in ("helper/src/imhelper", "imserver/src/imserver", "operator/src/imoperator"):
        sources += (docs.ROOT / package).rglob("*.py")
    words = {w for path in sources for w in re.findall(r"['\"]([A-Z]{3,})['\"]", path.read_text("utf-8"))}
    for rule in _allowed():
        assert all(part.upper() in words for part in rule.removeprefix("+").split("|")), rule


def test_the_rules_for_a_redis_cluster_are_told():
    text = docs.read("docs/deploy.md")
    assert all(rule in text for rule in docs.CLUSTER_RULES)
