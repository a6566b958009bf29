# A server that exists in Redis only, made of the project's own scripts: for tests that need clients but no sockets.
# Its lease, its place in the topology and its clients are entirely in the test's hands.

import json
import secrets
from typing import Any

from imhelper._backend.blocking import Link
from imhelper.core import keys
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.scripts import load
from imhelper.core.slots import group_of
from imhelper.core.tokens import slot_of_token
from imhelper.core.topology import Limits, ServerEntry, Topology

LIMITS = Limits(lease_seconds=3600)


class Boot:
    """One such server: it beats once when made; `publish` puts it into the topology.

    Args:
        url, prefix: of the Redis and of the cluster.
        name: of the server.
        limits: of the topology that it publishes; by default with a lease that never runs out.
        report: what its lease says beside the URL, e.g. `state="draining"`.
    """

    def __init__(self, url: str, prefix: str, name: str = "s0", limits: Limits = LIMITS, **report: Any) -> None:
        self.link = Link(parse_redis_url(url), prefix=prefix, timeout=10)
        self.link.ready()
        self.prefix, self.name, self.boot = prefix, name, secrets.token_hex(4)
        self.limits, self.sockets = limits, 0
        self.groups, self.slots = self.link.groups, 128
        self.url = f"ws://{name}.test/ws"
        self.incarnations = [self.link.eval(load("boot"), group, self.boot) for group in range(self.groups)]
        self.beat(first=True, **report)

    def beat(self, first: bool = False, **report: Any) -> None:
        """Renew the lease."""
        text = json.dumps({"url": self.url, "state": "active", "connections": self.sockets, **report})
        reply = self.link.eval(load("beat"), None, self.name, self.boot, int(first), text, "", 0)
        assert reply[0] == b"ok", reply

    def publish(self, *servers: ServerEntry) -> None:
        """Put a topology in force: of these servers, or of this one alone."""
        entries = servers or (ServerEntry(self.name, self.url),)
        taken = self.link.eval(load("publisher"), None, "take", "self", "u", "i", 60_000, 0)
        assert taken[0] == 1, taken
        current = self.link.command(None, "HGET", keys.topology(self.prefix), "epoch") or b""
        table = tuple(slot % len(entries) for slot in range(self.slots))
        record = Topology(0, self.slots, self.groups, entries, table, self.limits).to_json()
        reply = self.link.eval(load("publish"), None, "self", "u", "i", current, 0, record)
        assert reply[0] == 1, reply

    def connect(self, url: str) -> str:
        """What a handshake with this URL records; the client's id, or what the script said instead."""
        token = url.partition("token=")[2]
        slot = slot_of_token(token, self.slots)
        assert slot is not None
        self.sockets += 1
        limits, group = self.limits, group_of(slot, self.groups)
        reply = self.link.eval(
            load("connect"),
            group,
            *(self.boot, self.sockets, token, slot, "p", "", "", limits.max_sockets_per_client),
            *(limits.retain_entries, limits.retain_bytes, int(limits.retain_seconds * 1000)),
            self.incarnations[group],
        )
        told: bytes = reply[1] if reply[0] == b"ok" else reply[0]
        return told.decode()

    def log(self, slot: int) -> list[dict[bytes, bytes]]:
        """The entries of a slot's log."""
        group = group_of(slot, self.groups)
        entries = self.link.command(group, "XRANGE", keys.log(keys.group_tag(self.prefix, group), slot), "-", "+")
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]

    def sent(self) -> list[tuple[str, tuple[str, ...], str | None, Any]]:
        """Messages in the logs as (sender, receivers, chan, message), once an id."""
        found: dict[bytes, Any] = {}
        for entry in (e for slot in range(self.slots) for e in self.log(slot)):
            kind = b"m" if b"m" in entry else b"c"
            if b"p" not in entry or b"f" not in entry or (b"r" in entry and kind == b"c"):
                continue
            payload = entry[b"p"]
            letter = entry[b"t"]
            message: Any = payload if letter == b"b" else json.loads(payload) if letter == b"j" else payload.decode()
            names = tuple(entry[b"c"].decode().split("\n")) if kind == b"m" else ()
            chan = entry[b"h"].decode() if b"h" in entry else None
            before = found.get(entry[kind])
            found[entry[kind]] = (entry[b"f"].decode(), (*(before[1] if before else ()), *names), chan, message)
        return list(found.values())
