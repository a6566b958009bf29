# Free loopback ports for processes that must be told their port before they start.
# They lie below the kernel's ephemeral range, so that no outgoing connection takes one in between.

import random
import socket
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 200
_taken: set[int] = set()


def _highest() -> int:
    """The last port below the kernel's range of ephemeral ports (or below Linux's default one)."""
    first_ephemeral = int(_EPHEMERAL_RANGE.read_text().split()[0]) if _EPHEMERAL_RANGE.exists() else 32_768
    return max(first_ephemeral - 1, _LOWEST + 1_000)


def free_port() -> int:
    """A TCP port on which nobody listens, never the same twice in one test run."""
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, _highest())
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise RuntimeError(f"no free port in {_LOWEST}-{_highest()} after {_ATTEMPTS} attempts")
