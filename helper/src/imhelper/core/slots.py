"""From a client to its slot, and from a slot to its group of keys.
The function is part of the contract: CRC-32/ISO-HDLC over UTF-8, modulo the number of slots."""

from __future__ import annotations

from zlib import crc32

__all__ = ["CLUSTER_GROUPS", "group_of", "slot_of"]

CLUSTER_GROUPS = 16


def slot_of(client_id: str | bytes, slots: int) -> int:
    """The slot of a client: `crc32(client_id) % slots`."""
    raw = client_id.encode() if isinstance(client_id, str) else client_id
    return crc32(raw) % slots


def group_of(slot: int, groups: int) -> int:
    """The group whose hash tag holds everything of this slot: 1 group on one Redis, 16 on a Redis Cluster."""
    return slot % groups
