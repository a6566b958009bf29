# Runs the JavaScript client's own tests under Node, so that one command and one summary cover everything.
# They need Node 20 or newer; nothing is downloaded.

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "js"
OLDEST_NODE = 20
LIMIT_SECONDS = 300


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip(f"no node on this machine (Node {OLDEST_NODE} or newer)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    major = int(version.lstrip("v").split(".")[0])
    if major < OLDEST_NODE:
        pytest.skip(f"node is {version.strip()}, the tests need {OLDEST_NODE} or newer")
    return node


@pytest.mark.timeout(LIMIT_SECONDS + 30)
def test_the_clients_own_tests_pass_under_node():
    run = subprocess.run(
        [_node(), "--test", "--test-reporter=tap"],
        cwd=CLIENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert run.returncode == 0, run.stdout
    passed = re.search(r"^# pass (\d+)$", run.stdout, re.MULTILINE)
    assert passed is not None and int(passed[1]) > 0, run.stdout


def test_the_client_depends_on_nothing():
    package = json.loads((CLIENT / "package.json").read_text())
    assert not package.get("dependencies")
    assert package["type"] == "module"
