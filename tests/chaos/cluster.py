# The Redis of a run as a Redis Cluster of three primaries with a replica each, and how its hash slots are moved:
# key by key, as redis-cli and older operators do, or at once, as Valkey 9 can.

from pathlib import Path
from typing import Any

from imhelper.core.keys import global_tag, group_tag
from imhelper.core.slots import CLUSTER_GROUPS
from tests.chaos.store import Store
from tests.support.redis_cluster import (
    NODES,
    add_replicas,
    cluster_options,
    holder_of,
    join_cluster,
    migrate_slot,
    move_slot,
)
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

__all__ = ["ClusterStore"]

MIGRATE_PAUSE_SECONDS = 0.05


class ClusterStore(Store):
    """Six servers. `servers` are the first primaries, then their first replicas."""

    kind = "a Redis Cluster of three primaries with a replica each"
    tags = tuple(group_tag("im", group) for group in range(CLUSTER_GROUPS))
    every_tag = (*tags, global_tag("im"))

    def __init__(self, folder: Path, fsync: str) -> None:
        self._options = ("--repl-diskless-sync-delay", "0")
        super().__init__(folder, fsync)
        self.servers += [self._server(number) for number in range(1, 2 * NODES)]

    def _server(self, number: int, *options: str) -> RedisServer:
        return super()._server(number, *cluster_options(), *self._options, *options)

    @property
    def url(self) -> str:
        """All six, in the order in which they were made."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{s.port}" for s in self.servers)

    def start(self) -> None:
        """Make the cluster and wait until each replica is in step."""
        super().start()
        join_cluster(self.servers[:NODES])
        add_replicas(self.servers[:NODES], self.servers[NODES:])
        wait_until(self.replicated, 30, "three primaries with a replica each")

    # Who does what, as the nodes that run say.

    def _role(self, server: RedisServer) -> Any:
        return server.command("ROLE") if server.running else [b""]

    def leads(self, server: RedisServer) -> bool:
        """Whether it says of itself that it is a primary."""
        return bool(self._role(server)[0] == b"master")

    def primaries(self) -> list[RedisServer]:
        """The servers that say so of themselves."""
        return [s for s in self.servers if self.leads(s)]

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """The one server that follows a primary."""
        return next(s for s in self.servers if (r := self._role(s))[0] == b"slave" and int(r[2]) == primary.port)

    def replicated(self) -> bool:
        """Whether all nodes agree that the cluster is whole, and each primary has a replica in step."""
        if not all(s.running and self._whole(s) for s in self.servers):
            return False
        roles = [self._role(s) for s in self.servers]
        followed = {int(r[2]) for r in roles if r[0] == b"slave" and r[3] == b"connected"}
        return followed == {s.port for s, r in zip(self.servers, roles, strict=True) if r[0] == b"master"}

    def _whole(self, server: RedisServer) -> bool:
        with server.client() as client:
            info = client.cluster("INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384")

    def holder(self, tag: str) -> RedisServer:
        """The primary that answers for a hash tag."""
        return holder_of(self.primaries(), tag)

    # Moving a slot.

    def move(self, tag: str, old: RedisServer, new: RedisServer) -> None:
        """Key by key, in small batches, so that the business meets a slot that is neither here nor there."""
        move_slot(self.primaries(), tag, old, new, pause=MIGRATE_PAUSE_SECONDS)

    def migrate(self, tag: str, old: RedisServer, new: RedisServer) -> None:
        """At once: the slot has one owner at each moment."""
        migrate_slot(tag, old, new)
