"""The Redis side of one ImCluster: sees the leases and the table, publishes, and removes all keys at the end.
Only who holds the prefix by the publisher's lease may publish or remove; the scripts check it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from imhelper._backend.aio import Link
from imhelper.core import scripts
from imhelper.core.keys import global_tag, group_tag, publisher
from imhelper.core.leases import parse_leases
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.slots import CLUSTER_GROUPS
from imhelper.core.topology import Topology
from imhelper.errors import SettingError

from .beats import Beats
from .model import RedisView
from .names import ADOPT_PREFIX

__all__ = ["Access", "Redis", "Taken"]

log = logging.getLogger(__name__)

TIMEOUT = 3.0
TERM_MS = 15000
RENEW_SECONDS = 4.0
SCAN_COUNT = 1000


class Taken(Exception):
    """The prefix belongs to somebody else: another ImCluster, or servers that elect their own publisher."""


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """What it takes to reach Redis, read out of the spec and its Secrets; never shown."""

    url: str
    prefix: str
    username: str | None = None
    password: str | None = None
    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        return f"<access to Redis, prefix {self.prefix!r}>"


def _whose(kind: str, uid: str, adopt: bool) -> str:
    if not kind:
        return "nobody: this ImCluster has no keys there"
    if kind != "operator":
        return "servers that run with IM_TOPOLOGY=self: it is free 15 s after the last of them has ended"
    if adopt:
        return f"the ImCluster with uid {uid}, whose right has not run out: it is taken over once nobody renews it"
    return f"the ImCluster with uid {uid} (if that is gone for good, annotate this one: {ADOPT_PREFIX}=true)"


class Redis:
    """One cluster's way to Redis. Raises SettingError for a URL that can't be used.

    Every method raises RedisUnavailableError when Redis can't be reached.
    """

    def __init__(self, access: Access, uid: str, instance: str) -> None:
        self.access = access
        self._uid, self._instance = uid, instance
        self._folder = tempfile.TemporaryDirectory(prefix="imoperator-")
        try:
            config = parse_redis_url(
                access.url,
                username=access.username,
                # Asked at each connection, so that a rotated password needs no new link.
                password=self._password if access.password is not None else None,
                ssl_ca_certs=self._file("ca.crt", access.ca),
                ssl_certfile=self._file("tls.crt", access.cert),
                ssl_keyfile=self._file("tls.key", access.key),
            )
        except SettingError:
            self._folder.cleanup()
            raise
        self.link = Link(config, prefix=access.prefix, timeout=TIMEOUT)
        self._beats = Beats()
        self._topology: Topology | None = None
        self.remembered: Topology | None = None
        """The topology that was last in force, also when Redis has lost it."""
        self._renewed = float("-inf")

    def _password(self) -> str:
        return self.access.password or ""

    def _file(self, name: str, content: bytes | None) -> str | None:
        if content is None:
            return None
        path = Path(self._folder.name) / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        return str(path)

    def renew_access(self, access: Access) -> bool:
        """Use rotated secrets from the next connection on. False when the change needs a new link."""
        old = self.access
        same = (old.url, old.prefix, old.username, old.password is None) == (
            access.url,
            access.prefix,
            access.username,
            access.password is None,
        )
        files = (old.ca is None, old.cert is None) == (access.ca is None, access.cert is None)
        if not (same and files):
            return False
        for name, content in (("ca.crt", access.ca), ("tls.crt", access.cert), ("tls.key", access.key)):
            self._file(name, content)
        self.access = access
        return True

    async def hold(self, *, adopt: bool = False, only_keep: bool = False) -> bool:
        """Take or keep the right to publish. False while an earlier process of this operator still holds it.

        Raises Taken when the prefix is somebody else's. `adopt` takes over what another ImCluster left, once its right
        has run out; with `only_keep` nothing is taken that was not this ImCluster's before.
        """
        if monotonic() - self._renewed < RENEW_SECONDS:
            return True
        return await self._ask(adopt, only_keep)

    async def _ask(self, adopt: bool, only_keep: bool) -> bool:
        verb = "keep" if only_keep else "take"
        reply = await self.link.eval(
            scripts.load("publisher"), None, verb, "operator", self._uid, self._instance, TERM_MS, int(adopt)
        )
        if reply[0]:
            self._renewed = monotonic()
            return True
        self._renewed = float("-inf")
        kind, uid = reply[1].decode(), reply[2].decode()
        if kind == "operator" and uid == self._uid:
            return False
        raise Taken(f"prefix {self.access.prefix!r} on this Redis belongs to {_whose(kind, uid, adopt)}")

    async def view(self, expected: Collection[str], lease_seconds: float) -> RedisView:
        """The table in force and the leases. `expected` are servers that should have a lease."""
        known = str(self._topology.epoch) if self._topology else ""
        now_ms, epoch, record, flat = await self.link.eval(scripts.load("view"), None, known)
        if not epoch:
            self._topology = None
        elif record:
            self._topology = self.remembered = Topology.from_json(record, int(epoch))
        leases = parse_leases(flat, int(now_ms))
        dead = self._beats.observe(monotonic(), leases, expected, lease_seconds)
        return RedisView(self._topology, leases, dead)

    async def publish(self, new: Topology, view: RedisView) -> Topology | None:
        """Put a topology in force; None when somebody was faster or the right to publish is lost."""
        old = view.topology
        epochs = [int(at.report.get("epoch", 0)) for at in view.leases.values()]
        highest = max([*epochs, self.remembered.epoch if self.remembered else 0])
        reply = await self.link.eval(
            *(scripts.load("publish"), None, "operator", self._uid, self._instance),
            *(old.epoch if old else "", highest, new.to_json()),
        )
        if not reply[0]:
            self._renewed = float("-inf")
            return None
        self._topology = self.remembered = new.with_epoch(int(reply[1]))
        return self._topology

    @property
    def groups(self) -> int:
        """Into how many groups the keys are divided: fixed by the first topology."""
        return CLUSTER_GROUPS if self.link.groups > 1 else 1

    async def wipe(self) -> int:
        """Remove all keys under the prefix, in bounded batches; the right to publish goes last. How many keys went.

        Before each batch the right is renewed; raises Taken when it is lost, and then removes no more.
        """
        prefix, removed = self.access.prefix, 0
        for group in range(self.groups):
            removed += await self._wipe(group, group_tag(prefix, group))
        removed += await self._wipe(None, global_tag(prefix))
        await self._still_mine()
        removed += int(await self.link.command(None, "UNLINK", publisher(prefix)))
        self._renewed = float("-inf")
        return removed

    async def _wipe(self, group: int | None, tag: str) -> int:
        removed, cursor = 0, b"0"
        pattern = "".join(f"\\{c}" if c in "*?[]^\\-" else c for c in tag) + ":*"
        spared = publisher(self.access.prefix).encode()
        while True:
            cursor, names = await self.link.command(group, "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            names = [name for name in names if name != spared]
            if names:
                await self._still_mine()
                removed += await self.link.command(group, "UNLINK", *names)
            if cursor == b"0":
                return removed

    async def _still_mine(self) -> None:
        """Renew the right to publish, without taking it from anybody. Raises Taken when it is lost."""
        if not await self._ask(adopt=False, only_keep=True):
            raise Taken(f"another process of the operator looks after the prefix {self.access.prefix!r}")

    async def release(self) -> None:
        """Give the right to publish back, so that the next process need not wait for its end."""
        await self.link.eval(
            scripts.load("publisher"), None, "release", "operator", self._uid, self._instance, TERM_MS, 0
        )

    async def close(self) -> None:
        """Close the connections and remove the certificates from the disk."""
        await self.link.close()
        self._folder.cleanup()
