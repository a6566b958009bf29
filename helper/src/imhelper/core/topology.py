"""The topology record: which servers there are and which one the table gives for each slot.
Written by one publisher at a time, read by every helper and server; neighbouring formats are readable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..errors import TopologyError
from .slots import slot_of

__all__ = ["ACTIVE", "DRAINING", "FORMAT", "Limits", "ServerEntry", "Topology", "check_slots"]

FORMAT = 1
ACTIVE, DRAINING = "active", "draining"


def check_slots(slots: int) -> int:
    """Return `slots` if it is from 16 to 1024, else raise ValueError. An ImCluster takes powers of two only."""
    if not 16 <= slots <= 1024:
        raise ValueError(f"slots must be from 16 to 1024, not {slots}")
    return slots


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """One server of the topology: its name, its public URL (with the path `/ws`) and its state."""

    name: str
    url: str
    state: str = ACTIVE


@dataclass(frozen=True, slots=True)
class Limits:
    """What servers and helpers must agree on; set by the servers' settings and published with the topology.

    Units are in the names. `retain_*` bound the log of one slot, `grace_seconds` is how long a client without a
    socket still counts as online, `lease_seconds` how long a silent server still counts as alive.
    """

    max_payload_bytes: int = 65536
    retain_seconds: float = 60.0
    retain_entries: int = 10000
    retain_bytes: int = 16777216
    grace_seconds: float = 10.0
    lease_seconds: float = 5.0
    max_sockets_per_client: int = 16


@dataclass(frozen=True, slots=True)
class Topology:
    """The topology in force: `table[slot]` is an index into `servers`."""

    epoch: int
    slots: int
    groups: int
    servers: tuple[ServerEntry, ...]
    table: tuple[int, ...]
    limits: Limits = field(default_factory=Limits)
    format: int = FORMAT

    def server_of_slot(self, slot: int) -> ServerEntry | None:
        """The server that the table gives for a slot, or None when the table is empty."""
        return self.servers[self.table[slot]] if self.table else None

    def server_of(self, client_id: str) -> ServerEntry | None:
        """The server that the table gives for a client, or None when the table is empty."""
        return self.server_of_slot(slot_of(client_id, self.slots))

    def with_epoch(self, epoch: int) -> Topology:
        """The same topology under another epoch."""
        return replace(self, epoch=epoch)

    def to_json(self) -> str:
        """The record as it is stored. The epoch is stored beside it, because the publishing script decides it."""
        record = {
            "format": self.format,
            "slots": self.slots,
            "groups": self.groups,
            "servers": [asdict(s) for s in self.servers],
            "table": list(self.table),
            "limits": asdict(self.limits),
        }
        return json.dumps(record, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, raw: str | bytes, epoch: int) -> Topology:
        """Read a stored record. Unknown fields are ignored (a neighbouring release may add some).

        Raises TopologyError naming both formats when the record is of one that this release can't read, and for
        a record that makes no sense.
        """
        try:
            record = json.loads(raw)
            written = record["format"]
            if not isinstance(written, int) or abs(written - FORMAT) > 1:
                raise TopologyError(f"the topology in Redis has format {written}, this release reads format {FORMAT}")
            servers = tuple(ServerEntry(*(_text(s[f]) for f in ("name", "url", "state"))) for s in record["servers"])
            table = tuple(int(i) for i in record["table"])
            topology = cls(
                epoch=epoch,
                slots=check_slots(int(record["slots"])),
                groups=int(record["groups"]),
                servers=servers,
                table=table,
                limits=_limits(record.get("limits", {})),
                format=written,
            )
        except TopologyError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise TopologyError(f"the topology in Redis is not readable: {error!r}") from None
        if table and (len(table) != topology.slots or not all(0 <= i < len(servers) for i in table)):
            raise TopologyError(f"the topology in Redis has a table that does not fit {len(servers)} servers")
        if topology.groups not in (1, 16):
            raise TopologyError(f"the topology in Redis has {topology.groups} groups; 1 or 16 are known")
        return topology


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no str")
    return value


def _limits(record: Mapping[str, Any]) -> Limits:
    """Known limits as written, each in its own type; what is missing or no number keeps its default."""
    plain = Limits()
    values = {f.name: record.get(f.name) for f in fields(Limits)}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return replace(plain, **{name: type(getattr(plain, name))(value) for name, value in numbers.items()})
