# A Redis Cluster of three primaries for tests, made by the cluster commands themselves.
# It proves that what a script touches hangs together by hash tags; replicas come where a failover is tried.

from collections.abc import Sequence
from functools import partial

from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NODES = 3
HASH_SLOTS = 16_384


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
        name = master.command("CLUSTER", "MYID")
        assert isinstance(name, bytes)
        replica.command("CLUSTER", "REPLICATE", name)
