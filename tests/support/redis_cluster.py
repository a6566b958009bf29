# A Redis Cluster of three primaries for tests, made by the cluster commands themselves.
# It proves that what a script touches hangs together by hash tags; replicas come where a failover is tried.

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis
from redis.crc import key_slot

from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NODES = 3
HASH_SLOTS = 16_384
MOVE_KEYS = 20
MOVE_SECONDS = 60


def cluster_options() -> list[str]:
    """Command-line options that make a server a cluster node, with a bus port of its own."""
    return ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000"]


def join_cluster(nodes: Sequence[RedisServer]) -> None:
    """Make one cluster of empty nodes: all hash slots in equal shares, and wait until each node finds it complete."""
    share = -(-HASH_SLOTS // len(nodes))
    for number, node in enumerate(nodes):
        node.command("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, HASH_SLOTS) - 1)
        node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        bus = node.arguments[node.arguments.index("--cluster-port") + 1]
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    for node in nodes:
        wait_until(partial(_complete, node, len(nodes)), 30, f"a whole cluster at {node.name}")


def _complete(node: RedisServer, nodes: int) -> bool:
    with node.client() as client:
        info = client.cluster("INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes


def add_replicas(masters: Sequence[RedisServer], replicas: Sequence[RedisServer]) -> None:
    """Give each primary of a cluster an empty node as its replica, and wait until all know of all."""
    nodes = [*masters, *replicas]
    for replica in replicas:
        bus = replica.arguments[replica.arguments.index("--cluster-port") + 1]
        masters[0].command("CLUSTER", "MEET", "127.0.0.1", replica.port, bus)
    for node in nodes:
        wait_until(partial(_complete, node, len(nodes)), 30, f"a whole cluster at {node.name}")
    for master, replica in zip(masters, replicas, strict=True):
        replica.command("CLUSTER", "REPLICATE", _id(master))


def serves(node: RedisServer, tag: str) -> bool:
    """Whether a primary answers for a hash tag, and does not send the caller elsewhere."""
    try:
        node.command("EXISTS", tag)
    except (redis.ResponseError, redis.ConnectionError):
        return False
    return True


def holder_of(masters: Sequence[RedisServer], tag: str) -> RedisServer:
    """The primary that answers for a hash tag."""
    return next(node for node in masters if serves(node, tag))


def move_slot(
    masters: Sequence[RedisServer], tag: str, old: RedisServer, new: RedisServer, *, pause: float = 0.0
) -> None:
    """Move a tag's hash slot key by key (https://valkey.io/commands/cluster-setslot/), with pauses between batches."""
    slot = key_slot(tag.encode())
    start_move(slot, old, new)
    deadline = time.monotonic() + MOVE_SECONDS
    while keys := _keys(old, slot):
        if time.monotonic() > deadline:
            raise AssertionError(f"slot {slot} is not empty after {MOVE_SECONDS} s")
        old.command("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
        time.sleep(pause)
    # The new one first, or nobody serves the slot for a moment.
    for node in (new, old, *(n for n in masters if n not in (old, new))):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", _id(new))


def start_move(slot: int, old: RedisServer, new: RedisServer) -> None:
    """From here on the old node sends whoever asks for a key that it does not hold to the new one."""
    new.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(old))
    old.command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(new))


def migrate_slot(tag: str, old: RedisServer, new: RedisServer) -> None:
    """Move a tag's hash slot at once, as Valkey 9 can (https://valkey.io/commands/cluster-migrateslots/)."""
    slot = key_slot(tag.encode())
    old.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", _id(new))
    wait_until(lambda: serves(new, tag), MOVE_SECONDS, f"{tag} at {new.name}")


def _keys(node: RedisServer, slot: int) -> list[bytes]:
    reply: Any = node.command("CLUSTER", "GETKEYSINSLOT", slot, MOVE_KEYS)
    return list(reply)


def _id(node: RedisServer) -> str:
    reply: Any = node.command("CLUSTER", "MYID")
    return str(reply.decode())
