"""Builds the Centrifugo that go.mod names, once, into bench/.build: some minutes the first time.

The version is written in go.mod and nowhere else.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.build import BUILD

HERE = Path(__file__).parent
PACKAGE = "github.com/centrifugal/centrifugo/v6"
BUILD_SECONDS = 1800


def version() -> str:
    """The version that go.mod requires, without its "v"."""
    found = re.search(rf"{re.escape(PACKAGE)} v(\S+)", (HERE / "go.mod").read_text())
    return found[1] if found else "unknown"


def binary() -> Path:
    """Where the built program is, or will be."""
    return BUILD / f"centrifugo-{version()}"


def build(*, allowed: bool) -> str | None:
    """Builds it unless that was done; returns why there is none, or None."""
    target = binary()
    if target.exists():
        return None
    if not allowed:
        return "it is not built, and this run builds nothing"
    go = shutil.which("go")
    if go is None:
        return "it is not built, and there is no go to build it with"
    BUILD.mkdir(exist_ok=True)
    print(f"bench: building Centrifugo {version()}; the first time takes some minutes", file=sys.stderr, flush=True)
    # Renamed into place, so that a build that was stopped leaves nothing that could be started.
    unfinished = BUILD / f"{target.name}.{os.getpid()}"
    command = [go, "build", "-mod=mod", "-buildvcs=false", "-o", str(unfinished), PACKAGE]
    try:
        # What go says goes to the terminal as it comes: which modules it fetches, or what is wrong.
        done = subprocess.run(command, cwd=HERE, stdout=sys.stderr, timeout=BUILD_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"go build did not end within {BUILD_SECONDS} s"
    if done.returncode != 0:
        return f"go build failed with exit code {done.returncode}"
    unfinished.replace(target)
    return None
