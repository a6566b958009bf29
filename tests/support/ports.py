# Free loopback ports for processes that must be told their port before they start.
# They lie below the kernel's ephemeral range, so that no outgoing connection takes one in between.

import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 200
_taken: set[int] = set()


def _all_ports() -> range:
    """The ports below the kernel's range of ephemeral ports (or below Linux's default one)."""
    first_ephemeral = int(_EPHEMERAL_RANGE.read_text().split()[0]) if _EPHEMERAL_RANGE.exists() else 32_768
    return range(_LOWEST, max(first_ephemeral, _LOWEST + 1_000))


def share(ports: range, environ: Mapping[str, str]) -> range:
    """The part of `ports` that this process may give out: each worker of pytest-xdist has one of its own, in a row.

    What a worker starts inherits the worker's environment and so its share.
    """
    workers = int(environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(ports) // workers
    return ports[number * size : (number + 1) * size]


def free_port() -> int:
    """A TCP port on which nobody listens, never the same twice in one test run."""
    ports = share(_all_ports(), os.environ)
    for _ in range(_ATTEMPTS):
        port = random.choice(ports)
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise RuntimeError(f"no free port in {ports.start}-{ports.stop - 1} after {_ATTEMPTS} attempts")
