"""A server's lease as it stands in Redis, and the choice of a live server for a client.
Pure: who reads the record passes the age on Redis's own clock, so no local clock matters."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

from .topology import ACTIVE, ServerEntry, Topology

__all__ = ["Lease", "choose_server", "live_names", "matches", "parse_leases"]

_DEFAULT_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Lease:
    """The last beat of a server: which boot, the beat's number, its age in seconds on Redis's clock, its report."""

    name: str
    boot: str
    beat: int
    age: float
    report: Mapping[str, Any]

    @property
    def url(self) -> str:
        """The public URL that the server reports for itself."""
        return str(self.report.get("url", ""))

    @property
    def state(self) -> str:
        """`active` or `draining`, as the server sees itself."""
        return str(self.report.get("state", ACTIVE))

    @property
    def connections(self) -> int:
        """How many sockets the server held at its last beat."""
        return int(self.report.get("connections", 0))


def parse_leases(flat: Iterable[bytes], now_ms: int) -> dict[str, Lease]:
    """The leases out of a flat reply of HGETALL on the servers' hash. A record that is unreadable is left out."""
    leases: dict[str, Lease] = {}
    items = iter(flat)
    for raw_name, value in zip(items, items, strict=True):
        try:
            boot, beat, ms, report = value.decode().split("\n", 3)
            name, said = raw_name.decode(), json.loads(report)
            if isinstance(said, dict):
                leases[name] = Lease(name, boot, int(beat), max(0, now_ms - int(ms)) / 1000, said)
        except (ValueError, RecursionError):
            continue
    return leases


def live_names(leases: Mapping[str, Lease], lease_seconds: float, passed: float = 0.0) -> set[str]:
    """The servers whose lease is alive and that don't drain, `passed` seconds after the leases were read."""
    return {n for n, at in leases.items() if at.age + passed <= lease_seconds and at.state == ACTIVE}


def matches(server: ServerEntry, avoid: str | None) -> bool:
    """Whether `avoid` (a name or any URL of a server, with or without a query) means this server."""
    if not avoid:
        return False
    return avoid == server.name or _place(avoid) == _place(server.url)


def _place(url: str) -> tuple[str, ...]:
    """What a URL leads to, as browsers write it: host in lower case, no default port; no query, no slash at the end."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return (url,)
    return parts.scheme, parts.hostname or "", str(port), parts.path.rstrip("/")


def choose_server(
    topology: Topology, slot: int, key: str, live: Collection[str], avoid: str | None = None
) -> ServerEntry | None:
    """The server for a client: the table's, unless it is dead, draining or avoided; then the next by rendezvous.

    `key` (the client's id) spreads the clients of one dead server over all others. When `avoid` is the only live
    server it is given all the same: better the one that may be back than none.
    """
    usable = [s for s in topology.servers if s.state == ACTIVE and s.name in live]
    wanted = [s for s in usable if not matches(s, avoid)] or usable
    if not wanted:
        return None
    owner = topology.server_of_slot(slot)
    if owner is not None and owner in wanted:
        return owner
    return max(wanted, key=lambda s: (blake2b(f"{s.name}\n{key}".encode(), digest_size=8).digest(), s.name))
