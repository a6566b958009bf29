"""ImHelper: what business services call to give out URLs, send, and look after clients and channels.
The blocking form is generated from this file by tools/unasync.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self

from .._backend.aio import Link
from .._backend.common import Arg, Call
from .._checks import check_avoid, check_callback, check_group, check_reason, check_timeout, check_token_ttl, with_token
from .._models import ChanOnline, SendEvent, Server
from ..core import keys
from ..core.ids import check_chan, check_client, check_metadata, check_prefix, unique
from ..core.redis_url import Credential, parse_redis_url
from ..core.scripts import load
from ..core.slots import group_of, slot_of
from ..core.tokens import make_token
from ..core.topology import DRAINING, Topology
from ..errors import NoServerError
from .event_groups import GroupSubscription
from .events import Callback, Feed, Subscription
from .scan import Scan
from .sending import Sender, retention
from .view import View

__all__ = ["ImHelper"]

MANY = 5000


class ImHelper:
    """The way from a business service to its clients. Speaks to Redis only.

    Connects at first use, so an instance made at import time survives a fork (gunicorn --preload, Celery prefork).
    One instance serves any number of concurrent callers. Close it with `close()` or use it as a context manager.

    Args:
        redis_url: where Redis is: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`
            (docs/helper.md has the forms).
        prefix: the cluster's name in Redis; the same as the servers' IM_PREFIX.
        token_ttl: seconds for which a URL of `prev_connect_server` may be used; at most 3600.
        timeout: seconds that Redis may take for an answer; then a call gives up with RedisUnavailableError.
        username, password: the login, instead of in the URL; a callable is asked again at each connection.
        ssl_ca_certs, ssl_certfile, ssl_keyfile: paths of PEM files for TLS, read again at each connection.

    Raises:
        SettingError: an argument makes no sense (also a ValueError). Nothing connects yet.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        prefix: str = "im",
        token_ttl: float = 10,
        timeout: float = 5,
        username: Credential = None,
        password: Credential = None,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
    ) -> None:
        config = parse_redis_url(
            redis_url,
            username=username,
            password=password,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
        )
        self._set_up(Link(config, prefix=check_prefix(prefix), timeout=check_timeout(timeout)), token_ttl)

    def _set_up(self, link: Link, token_ttl: float) -> None:
        self._link = link
        self._token_ttl_ms = int(check_token_ttl(token_ttl) * 1000)
        self._view = View(link)
        self._scan = Scan(self._view)
        self._hooks: list[Callable[[SendEvent], Any]] = []
        self._subscriptions: list[Subscription] = []
        self._sender = Sender(self._view, self._hooks)

    async def close(self) -> None:
        """End the subscriptions of `event_bus` and close the connections.

        Safe to repeat; a later call connects again.
        """
        running, self._subscriptions = self._subscriptions, []
        for subscription in running:
            await subscription.close()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._link.prefix!r} at {self._link.config.describe()}>"

    # -- connecting -------------------------------------------------------------------------------------------------

    async def prev_connect_server(self, client_id: str, metadata: str = "", *, avoid: str | None = None) -> str:
        """A URL with a one-time token, with which the client connects its WebSocket.

        Args:
            client_id: the user.
            metadata: up to 4 KiB of text; the online and offline events carry it.
            avoid: name or any URL of a server that just failed: another one is given if there is one.

        Returns:
            `ws[s]://…/ws?token=…` of an active server with a live lease. The token works once, for `token_ttl`
            seconds, on any server.

        Raises:
            NoServerError: no server is active. InvalidIdError, SettingError: a bad argument.
            RedisUnavailableError, TopologyError.
        """
        check_client(client_id)
        check_metadata(metadata)
        check_avoid(avoid)
        while True:
            topology = await self._view.topology()
            slot = slot_of(client_id, topology.slots)
            token = make_token(slot)
            args = (token, self._token_ttl_ms, client_id, metadata)
            # Looked at each time, in the same round trip: a server that began to drain a moment ago is not given.
            await self._view.all([Call(group_of(slot, topology.groups), args, load("mint"))], look=True)
            server = await self._view.choose(client_id, avoid)
            now = await self._view.topology()
            if (now.slots, now.groups) == (topology.slots, topology.groups):
                break
        if server is None:
            raise NoServerError(f"no imserver is active under prefix {self._link.prefix!r}")
        return with_token(server.url, token)

    async def disconnect(self, client_id: str, reason: str = "") -> int:
        """Close all sockets of a client (code 4500) on all servers; it is offline at once, without grace.

        Tokens minted for it before die. `reason` (up to 123 UTF-8 bytes) goes into the close frame.

        Returns:
            How many sockets it had.

        Raises:
            InvalidIdError, SettingError, RedisUnavailableError, TopologyError.
        """
        check_client(client_id)
        check_reason(reason)
        reply = await self._of_client(client_id, "disconnect", reason)
        return int(reply or 0)

    # -- sending ----------------------------------------------------------------------------------------------------

    @property
    def on_send(self) -> list[Callable[[SendEvent], Any]]:
        """Callables (sync or async) called with a `SendEvent` before a send is published.

        One that raises stops that send, and the exception reaches the caller.
        """
        return self._hooks

    @on_send.setter
    def on_send(self, hooks: Iterable[Callable[[SendEvent], Any]]) -> None:
        self._hooks[:] = hooks

    async def send_message(
        self,
        sender: str,
        receivers: str | Iterable[str],
        message: object,
        receipt: bool = False,
        *,
        idempotency_key: str | None = None,
    ) -> str:
        """Send to one client or several. A receiver named twice gets it once.

        Args:
            sender: the client id that the message is from; receipts go to it.
            receivers: one id or an iterable of ids. The sender among them gets it only when it holds more than one
                socket (other devices).
            message: a str is delivered as it is, bytes as a binary frame, anything else as compact JSON.
            receipt: whether each receiver yields one receipt to the sender.
            idempotency_key: repeating a send with the same sender and key within 5 minutes reaches each receiver
                once and gives the same id.

        Returns:
            The message's id, once Redis has accepted it: from then on it is delivered at least once to every
            receiver that is online or in grace (contract part 4).

        Raises:
            MessageError: too large or not encodable; nothing was sent.
            RedisUnavailableError: carries `message_id`, `idempotency_key` and `uncovered`; repeat with that key.
            NoServerError: no server ever ran under this prefix. InvalidIdError, SettingError, TopologyError.
            Whatever a hook of `on_send` raises; nothing was sent.
        """
        check_client(sender)
        return await self._sender.to_clients(sender, unique(receivers), message, receipt, idempotency_key)

    async def send_chan_message(
        self, sender: str, chan: str, message: object, *, idempotency_key: str | None = None
    ) -> str:
        """Send to every member of a channel, the sender included.

        Arguments, result and errors are those of `send_message`; `uncovered` holds the channel. A join that returned
        before this was called is covered; nobody gets it for a time before joining.
        """
        check_client(sender)
        check_chan(chan)
        return await self._sender.to_chan(sender, chan, message, idempotency_key)

    # -- presence ---------------------------------------------------------------------------------------------------

    async def has_online(self, client_id: str) -> bool:
        """Whether a client is online, or in grace. Raises InvalidIdError, RedisUnavailableError, TopologyError."""
        return (await self.has_online_many([client_id]))[client_id]

    async def has_online_many(self, ids: Iterable[str]) -> dict[str, bool]:
        """For each id whether it is online. Raises as `has_online`."""
        wanted = unique(ids)
        topology = await self._view.topology_or_none()
        if topology is None:
            return dict.fromkeys(wanted, False)
        by_group: dict[int, list[str]] = {}
        for client_id in wanted:
            by_group.setdefault(group_of(slot_of(client_id, topology.slots), topology.groups), []).append(client_id)
        batches = [(g, names[i : i + MANY]) for g, names in by_group.items() for i in range(0, len(names), MANY)]
        replies = await self._view.all([Call(g, ("SMISMEMBER", keys.online(self._tag(g)), *b)) for g, b in batches])
        found = {
            name: bool(flag)
            for (_, b), reply in zip(batches, replies, strict=True)
            for name, flag in zip(b, reply, strict=True)
        }
        return {client_id: found[client_id] for client_id in wanted}

    async def get_client_list_by_online(self) -> list[str]:
        """The ids of all clients online, each once. For many clients prefer `iter_online`."""
        return list(dict.fromkeys([client_id async for client_id in self.iter_online()]))

    async def iter_online(self) -> AsyncIterator[str]:
        """Stream the ids of all clients online, in no order.

        Who is online from beginning to end is in it; who comes or goes meanwhile may be. While many come and go, an
        id may turn up twice (as with Redis's SSCAN).
        """
        for group in await self._groups():
            async for client_id in self._scan.members(group, keys.online(self._tag(group))):
                yield client_id

    async def get_online_count(self) -> int:
        """How many clients are online, without listing them."""
        groups = await self._groups()
        return sum(await self._view.all([Call(g, ("SCARD", keys.online(self._tag(g)))) for g in groups]))

    async def event_bus(self, online: Callback, offline: Callback, *, group: str | None = None) -> Subscription:
        """Call back when clients come online and go offline; every event after this returns is covered.

        Args:
            online, offline: called with (client_id, metadata), one event at a time, in each client's order. Sync or
                async. A callback that raises is logged, and its event counts as done.
            group: without it this subscriber gets every event. With it each event goes to one member of the group,
                and is given again if that member dies before its callback returned (so it may come twice). A group's
                position is kept for a day; events for an hour, or the last 100,000.

        Returns:
            The running subscription. `close()` ends it; it is a context manager.

        Raises:
            SettingError: a bad argument. RedisUnavailableError, TopologyError. Later losses of Redis are waited out.
        """
        check_callback("online", online)
        check_callback("offline", offline)
        feed = Feed(self._link, self._view)
        if group is None:
            subscription = Subscription(feed, online, offline)
        else:
            subscription = GroupSubscription(self._link, feed, online, offline, check_group(group))
        await subscription.start()
        self._subscriptions = [s for s in self._subscriptions if not s.closed] + [subscription]
        return subscription

    # -- channels ---------------------------------------------------------------------------------------------------

    async def join_chan(self, client_id: str, chan: str) -> bool:
        """Make a client a member of a channel. Returns False when it is not online (nothing is recorded).

        Membership ends with `leave_chan`, `clear_chan_client` or when the client goes offline. Raises InvalidIdError,
        RedisUnavailableError, TopologyError.
        """
        check_client(client_id)
        check_chan(chan)
        return bool(await self._of_client(client_id, "join", chan))

    async def leave_chan(self, client_id: str, *chans: str) -> int:
        """Take a client out of channels. Returns how many it was in and left."""
        check_client(client_id)
        wanted = list(dict.fromkeys(map(check_chan, chans)))
        return int(await self._of_client(client_id, "leave", *wanted) or 0) if wanted else 0

    async def get_chan_client_list(self, chan: str) -> list[str]:
        """The ids of a channel's members, each once. For large channels prefer `iter_chan`."""
        return list(dict.fromkeys([client_id async for client_id in self.iter_chan(chan)]))

    async def iter_chan(self, chan: str) -> AsyncIterator[str]:
        """Stream the ids of a channel's members; guarantees as `iter_online`."""
        check_chan(chan)
        for group in await self._groups():
            async for client_id in self._scan.members(group, keys.chan_members(self._tag(group), chan)):
                yield client_id

    async def clear_chan_client(self, chan: str) -> int:
        """Take all members out of a channel, in batches. Returns how many were removed."""
        check_chan(chan)
        topology = await self._view.topology_or_none()
        if topology is None:
            return 0
        removed = 0
        for group in range(topology.groups):
            async for batch in self._scan.batches(group, keys.chan_members(self._tag(group), chan)):
                by_slot: dict[int, list[str]] = {}
                for client_id in batch:
                    by_slot.setdefault(slot_of(client_id, topology.slots), []).append(client_id)
                parts: list[Arg] = [*retention(topology), chan]
                for slot, names in by_slot.items():
                    parts += (slot, "\n".join(names))
                [gone] = await self._view.all([Call(group, tuple(parts), load("clear"))])
                removed += gone
        return removed

    async def get_chan_list(self) -> list[ChanOnline]:
        """Every channel that has members, with how many, sorted by name."""
        counts: dict[str, int] = {}
        for group in await self._groups():
            async for flat in self._scan.pages(group, "HSCAN", keys.chan_index(self._tag(group))):
                for chan, online in zip(flat[::2], flat[1::2], strict=True):
                    name = chan.decode()
                    counts[name] = counts.get(name, 0) + int(online)
        return [ChanOnline(chan, counts[chan]) for chan in sorted(counts)]

    async def get_chan_list_by_client_id(self, client_id: str) -> list[str]:
        """The channels that a client is a member of, sorted."""
        check_client(client_id)
        topology = await self._view.topology_or_none()
        if topology is None:
            return []
        group = group_of(slot_of(client_id, topology.slots), topology.groups)
        [names] = await self._view.all([Call(group, ("HKEYS", keys.client_chans(self._tag(group), client_id)))])
        return sorted(name.decode() for name in names)

    async def get_chan_online(self, chan: str) -> int:
        """How many members a channel has."""
        check_chan(chan)
        groups = await self._groups()
        replies = await self._view.all([Call(g, ("HGET", keys.chan_index(self._tag(g)), chan)) for g in groups])
        return sum(int(reply or 0) for reply in replies)

    # -- the cluster ------------------------------------------------------------------------------------------------

    async def topology(self) -> Topology:
        """The topology in force, at most a second old. Raises NoServerError when there is none."""
        await self._view.newest()
        return await self._view.topology()

    async def servers(self) -> list[Server]:
        """Every server that is in the topology or holds a lease, sorted by name."""
        topology = await self._view.newest()
        leases = self._view.leases
        entries = {entry.name: entry for entry in topology.servers} if topology else {}
        found = []
        for name in sorted(entries.keys() | leases.keys()):
            entry = entries.get(name)
            lease, age = leases.get(name, (None, None))
            states = {entry.state if entry else "", lease.state if lease else ""}
            state = DRAINING if DRAINING in states else (entry.state if entry else lease.state if lease else "")
            url = entry.url if entry else lease.url if lease else ""
            found.append(Server(name, url, state, lease.connections if lease else 0, age))
        return found

    # -- shared -----------------------------------------------------------------------------------------------------

    def _tag(self, group: int) -> str:
        return keys.group_tag(self._link.prefix, group)

    async def _groups(self) -> range:
        """The groups of keys; none while there is no topology, as nobody was ever online then."""
        topology = await self._view.topology_or_none()
        return range(topology.groups if topology else 0)

    async def _of_client(self, client_id: str, script: str, *args: Arg) -> Any:
        """Run a script that begins with retention, slot and client; None while there is no topology."""
        topology = await self._view.topology_or_none()
        if topology is None:
            return None
        slot = slot_of(client_id, topology.slots)
        call = Call(group_of(slot, topology.groups), (*retention(topology), slot, client_id, *args), load(script))
        return (await self._view.all([call]))[0]
