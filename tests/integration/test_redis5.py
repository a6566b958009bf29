# Runs every module marked `redis5` a second time, in the environment that holds the oldest redis-py we support.
# `make setup` builds that environment (.venv-redis5); the main one has the newest redis-py.

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-redis5" / "bin" / "python"
MARKED = re.compile(r"^pytestmark = .*\bpytest\.mark\.redis5\b", re.MULTILINE)
LIMIT_SECONDS = 600


def _marked_modules() -> list[str]:
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(module.relative_to(ROOT)) for module in modules if MARKED.search(module.read_text())]


def test_there_are_marked_modules():
    assert _marked_modules()


@pytest.mark.timeout(LIMIT_SECONDS + 60)
@pytest.mark.parametrize("module", _marked_modules())
def test_a_marked_module_passes_with_the_oldest_redis_py(module):
    if not PYTHON.exists():
        pytest.skip("no .venv-redis5 (make setup builds it)")
    version = subprocess.run(
        [PYTHON, "-c", "import redis; print(redis.__version__)"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert version.startswith("5.0."), f"redis-py {version.strip()} in {PYTHON.parent.parent.name}; run make setup"
    run = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", module],
        cwd=ROOT,
        env={**os.environ, "IM_TEST_REDIS": "valkey"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert run.returncode == 0, run.stdout
    print(run.stdout)
