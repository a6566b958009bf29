# The lints of the Makefile as tests, so that one run and one summary cover all there is to check.
# `make lint` runs the same without the tests.

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 300


@pytest.mark.timeout(LIMIT_SECONDS + 10)
@pytest.mark.parametrize("lint", ["style", "types", "imports", "generated"])
def test_lint(lint):
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    done = subprocess.run(
        [make, "--no-print-directory", f"lint-{lint}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stdout
