"""The names of all Redis keys. Scripts build the same names from the tag that they get as KEYS[1].
docs/data-model.md describes what each holds; a test compares the two."""

from __future__ import annotations

__all__ = [
    "boot_sockets",
    "chan_index",
    "chan_members",
    "client_chans",
    "client_sockets",
    "events",
    "global_tag",
    "grace",
    "group_tag",
    "last_ids",
    "log",
    "online",
    "outbox",
    "publisher",
    "servers",
    "token",
    "topology",
    "wake",
]


def group_tag(prefix: str, group: int) -> str:
    """The hash tag of a group; every key of the group starts with it."""
    return f"{{{prefix}:{group}}}"


def global_tag(prefix: str) -> str:
    """The hash tag of what exists once: topology, leases, publisher."""
    return f"{{{prefix}}}"


def topology(prefix: str) -> str:
    """Hash: `epoch` and `record` (JSON)."""
    return f"{{{prefix}}}:topo"


def publisher(prefix: str) -> str:
    """Hash: who may publish the topology, and until when."""
    return f"{{{prefix}}}:pub"


def servers(prefix: str) -> str:
    """Hash: server name → lease."""
    return f"{{{prefix}}}:servers"


def log(tag: str, slot: int) -> str:
    """Stream: the log of a slot."""
    return f"{tag}:log:{slot}"


def token(tag: str, token: str) -> str:
    """String: for whom a one-time token is; gone once it is used."""
    return f"{tag}:tok:{token}"


def wake(tag: str, boot: str) -> str:
    """Stream: wakes the blocked reader of a boot, carries its canary and liveness questions."""
    return f"{tag}:wake:{boot}"


def online(tag: str) -> str:
    """Set: clients online or in grace."""
    return f"{tag}:online"


def grace(tag: str) -> str:
    """Sorted set: client → when its grace ends, in ms of Redis's clock."""
    return f"{tag}:grace"


def client_sockets(tag: str, client_id: str) -> str:
    """Hash: BOOT.N → start, mode, time and metadata of each socket of the client."""
    return f"{tag}:sk:{client_id}"


def client_chans(tag: str, client_id: str) -> str:
    """Hash: channel → the log number of the join."""
    return f"{tag}:ch:{client_id}"


def chan_members(tag: str, chan: str) -> str:
    """Set: the group's part of a channel's members."""
    return f"{tag}:mb:{chan}"


def chan_index(tag: str) -> str:
    """Hash: channel → number of members in this group; a channel without members is not in it."""
    return f"{tag}:chans"


def last_ids(tag: str) -> str:
    """Hash: slot → id of the last entry ever appended to its log."""
    return f"{tag}:last"


def boot_sockets(tag: str, boot: str) -> str:
    """Hash: socket number → slot and client, for each socket that a boot holds."""
    return f"{tag}:bs:{boot}"


def events(tag: str) -> str:
    """Stream: online and offline events of the group's clients."""
    return f"{tag}:ev"


def outbox(tag: str) -> str:
    """Stream: receipts on their way to a sender in another group (Redis Cluster only)."""
    return f"{tag}:out"
