"""Many clients and channels in Redis without a socket each: what Redis then holds is what real ones leave there.

The script `restore`, with which a server records again what it holds, is called in the name of a live server. So
nothing reclaims them, and the server itself, which reads only slots of sockets that it has, knows nothing of them.
"""

from collections.abc import Sequence

from redis.asyncio import Redis

from bench.cluster import PREFIX, Cluster
from bench.errors import BenchError
from imhelper.core import keys
from imhelper.core.scripts import load
from imhelper.core.slots import group_of, slot_of

# Socket numbers that a server does not come to.
FIRST_NUMBER = 10**9
BATCH = 200


def channel(index: int) -> str:
    """The name of a channel of `populate`."""
    return f"chan-{index}"


async def populate(cluster: Cluster, clients: Sequence[str], channels: int) -> None:
    """Makes `clients` online, each a member of one of `channels` channels in turn.

    Raises:
        BenchError: not every one was recorded.
    """
    topology = await cluster.helper.topology()
    limits = topology.limits
    bounds = (limits.retain_entries, limits.retain_bytes, int(limits.retain_seconds * 1000))
    script, recorded = load("restore"), 0
    by_slot: dict[int, list[int]] = {}
    for index, client in enumerate(clients):
        by_slot.setdefault(slot_of(client, topology.slots), []).append(index)
    async with Redis.from_url(cluster.redis_url) as redis:
        boot = await _boot(redis)
        await redis.script_load(script.source)
        for slot, indexes in by_slot.items():
            tag = keys.group_tag(PREFIX, group_of(slot, topology.groups))
            for first in range(0, len(indexes), BATCH):
                batch = indexes[first : first + BATCH]
                last = await redis.hget(keys.last_ids(tag), str(slot)) or b"0-0"
                sockets: list[str | int | bytes] = []
                for index in batch:
                    sockets += (FIRST_NUMBER + index, clients[index], last, "e", "", 1, channel(index % channels))
                reply = await redis.evalsha(script.sha, 1, tag, *bounds, boot, slot, last, len(batch), *sockets)
                recorded += int(reply[0])
    if recorded != len(clients):
        raise BenchError(f"{len(clients)} clients were to be recorded in Redis; it took {recorded}")


async def _boot(redis: Redis) -> bytes:
    """The boot of a live server, from its lease."""
    leases: dict[bytes, bytes] = await redis.hgetall(keys.servers(PREFIX))  # type: ignore[assignment]
    return next(iter(leases.values())).partition(b"\n")[0]
