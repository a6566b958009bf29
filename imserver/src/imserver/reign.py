"""Whether a group's keys are with another Redis process because of a failover, or only moved there, or restarted.
Pure: fed with what each process says of itself. In doubt it was a failover, for then writes may be missing."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reign", "failed_over", "reign_of"]

NOBODY = b"0" * 40


@dataclass(frozen=True, slots=True)
class Reign:
    """A Redis process as a primary: its run id, the id of its replication history, the id of the one before."""

    run: bytes
    history: bytes
    before: bytes


def reign_of(info: bytes) -> Reign | None:
    """The reign that a reply to INFO tells of, or None for a replica's."""
    fields = dict(line.partition(b":")[::2] for line in info.split(b"\r\n"))
    if fields.get(b"role") != b"master":
        return None
    return Reign(fields[b"run_id"], fields[b"master_replid"], fields[b"master_replid2"])


def failed_over(known: Reign, gap: float, now: Reign, uptime: float, left: Reign | None) -> bool:
    """Whether what `known` acknowledged may be missing at `now`.

    Args:
        known: the process that answered last, `gap` seconds ago.
        now: the one that answers now, up for `uptime` seconds.
        left: the process that last sent the caller elsewhere while it was a primary itself, if one did: a hash slot
            that is moved leaves its old primary in power. A failover does not.
    """
    if now.run == known.run:
        # Made a replica and a primary again; other new histories (the first replica came) have none before them.
        return now.history != known.history and now.before != NOBODY
    if uptime <= gap + 1:
        # It was not up yet while the other one still lived: a restart.
        return False
    moved = left == known and now.before != known.history
    return not moved
