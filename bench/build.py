"""Compiles the C programs of bench/native at first use, into bench/.build.

A program is compiled again when any source changed: its file name carries a digest of all of them.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

NATIVE = Path(__file__).parent / "native"
BUILD = Path(__file__).parent / ".build"
COMPILE_TIMEOUT = 120


def compiler() -> str | None:
    """The path of a C compiler (`cc` or `gcc`), or None when there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def program(name: str) -> Path:
    """Gives the path of the compiled program `name` ("loadgen" or "floor"), building it if need be.

    Raises:
        BenchError: no compiler, or the compiler refused; the message says what to install or what it said.
    """
    sources = sorted(NATIVE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    target = BUILD / f"{name}-{digest}"
    if target.exists():
        return target
    cc = compiler()
    if cc is None:
        raise BenchError(
            "bench needs a C compiler and found neither cc nor gcc: install gcc (Debian, Ubuntu: apt-get install gcc)"
        )
    BUILD.mkdir(exist_ok=True)
    # Renamed into place, so that two runs that compile at once can't start a half-written program.
    unfinished = BUILD / f"{name}-{digest}.{os.getpid()}"
    command = [cc, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(unfinished), str(NATIVE / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT)  # noqa: S603
    if done.returncode != 0:
        raise BenchError(f"{cc} could not build {name}:\n{done.stderr.strip()}")
    unfinished.replace(target)
    return target
