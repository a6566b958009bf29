# Finds the machine's Chromium and the options under which it runs headless and without talking to the outside.
# Screenshots of tests go to build/artifacts, where CI keeps them.

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str:
    """The Chromium program; skips the test, with the reason, where the machine has none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")


def artifacts_folder() -> Path:
    """Where screenshots go: IM_TEST_ARTIFACTS, or build/artifacts."""
    folder = Path(os.environ.get("IM_TEST_ARTIFACTS", ROOT / "build" / "artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
