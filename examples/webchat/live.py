# Who is online, which rooms there are and how the servers do: watched here once, pushed to every page.
# Pages sit in one lobby channel and get changes through ImCluster itself, so no tab has to poll.
from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

from imhelper import ImError, ImHelper, Server

from .forms import RESERVED

log = logging.getLogger("webchat")

LOBBY = RESERVED + "lobby"
SENDER = RESERVED + "webchat"

_PUSH_SECONDS = 0.5
"""The least time between two pushes: a thousand people who come at once cost a page two messages a second."""
_TICK_SECONDS = 2.0
"""How often to look without an event: servers come and go, and other services join clients to rooms."""
_LATE_SECONDS = 3.0
"""A server whose lease is older than this is shown as not answering (leases last 5 s by default)."""
_RETRY_SECONDS = 2.0
"""How long to wait after Redis or the cluster could not be asked."""
_KEPT_NAMES = 10_000
"""How many display names are remembered; the one noted longest ago goes first."""
_SHOWN = 100
"""How many people and rooms a page is told of by name; the counts are always of all."""


def _answers(server: Server) -> bool:
    return server.lease_age is not None and server.lease_age <= _LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What pages show, in sections that are pushed apart; `rev` grows, so that an older one is never shown last."""

    rev: int
    sections: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"rev": self.rev, **self.sections}


class Live:
    """Watches the cluster and pushes what changed to the lobby, at least once for each page that is in it.

    After the construction run `run()` as a task; it ends only when cancelled.
    """

    def __init__(self, helper: ImHelper) -> None:
        self._helper = helper
        self._names: dict[str, str] = {}
        self._dirty = asyncio.Event()
        self._pushed: dict[str, Any] = {}

    def wake(self) -> None:
        """Look again soon: something that pages show may have changed."""
        self._dirty.set()

    async def enter(self, client: str, name: str) -> bool:
        """Put a page into the lobby under its display name; False when the client is not online."""
        joined = await self._helper.join_chan(client, LOBBY)
        if joined:
            self.name(client, name)
        return joined

    def name(self, client: str, name: str) -> None:
        """Note a client's display name, an empty one included, and look again soon."""
        self._names.pop(client, None)
        if name:
            self._names[client] = name
            if len(self._names) > _KEPT_NAMES:
                del self._names[next(iter(self._names))]
        self.wake()

    async def snapshot(self) -> Snapshot:
        """Read everything that pages show. Raises ImError as the helper does."""
        rev = time.time_ns() // 1_000_000
        channels = await self._helper.get_chan_list()
        servers = await self._helper.servers()
        online = await self._helper.get_online_count()
        people: dict[str, str] = {}
        async for client in self._helper.iter_online():
            people[client] = self._names.get(client, "")
            if len(people) == _SHOWN:
                break
        rooms = sorted(
            (found for found in channels if not found.chan.startswith(RESERVED)),
            key=lambda room: (-room.online, room.chan),
        )
        named = sorted(people.items(), key=lambda person: (person[1].lower() or "~", person[0]))
        return Snapshot(
            rev,
            {
                "people": {
                    "online": max(online, len(people)),
                    "list": [{"id": key, "name": name} for key, name in named],
                },
                "rooms": {"count": len(rooms), "list": [room._asdict() for room in rooms[:_SHOWN]]},
                "servers": [
                    {
                        "name": server.name,
                        "url": server.url,
                        "state": server.state if _answers(server) else "silent",
                        "connections": server.connections,
                    }
                    for server in sorted(servers, key=lambda server: server.name)
                ],
            },
        )

    async def run(self) -> None:
        """Follow presence events and push changes until cancelled; an unreachable Redis is waited for."""
        waits = False
        while True:
            try:
                async with await self._helper.event_bus(self._online, self._offline):
                    self._pushed = {}
                    while True:
                        await self._push_changes()
                        waits = False
                        await asyncio.sleep(_PUSH_SECONDS)
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._dirty.wait(), _TICK_SECONDS - _PUSH_SECONDS)
                        self._dirty.clear()
            except ImError as exc:
                if not waits:
                    log.warning("live view waits: %s", exc)
                waits = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _push_changes(self) -> None:
        snapshot = await self.snapshot()
        changed = {name: value for name, value in snapshot.sections.items() if self._pushed.get(name) != value}
        if changed:
            await self._helper.send_chan_message(SENDER, LOBBY, {"type": "live", "rev": snapshot.rev, **changed})
            self._pushed = snapshot.sections

    def _online(self, client: str, metadata: str) -> None:
        self.name(client, metadata)

    def _offline(self, client: str, metadata: str) -> None:
        self.name(client, "")
