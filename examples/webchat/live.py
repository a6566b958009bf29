# Who is online, which rooms there are and how the servers do: watched here once, pushed to every page.
# Pages sit in one lobby channel and get changes through ImCluster itself, so no tab has to poll.
from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

from imhelper import ImError, ImHelper

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
_SHOWN = 100
"""How many people and rooms a page is told of by name; the counts are always of all."""


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
            self._name(client, name)
        return joined

    async def snapshot(self) -> Snapshot:
        """Read everything that pages show. Raises ImError as the helper does."""
        rev = time.time_ns() // 1_000_000
        channels = await self._helper.get_chan_list()
        servers = await self._helper.servers()
        online = await self._helper.get_online_count()
        people: list[dict[str, str]] = []
        async with contextlib.aclosing(self._helper.iter_online()) as ids:
            async for client in ids:
                people.append({"id": client, "name": self._names.get(client, "")})
                if len(people) == _SHOWN:
                    break
        rooms = [{"chan": chan, "online": count} for chan, count in channels if not chan.startswith(RESERVED)]
        rooms.sort(key=lambda room: (-room["online"], room["chan"]))
        people.sort(key=lambda person: (person["name"].lower() or "~", person["id"]))
        return Snapshot(
            rev,
            {
                "people": {"online": max(online, len(people)), "list": people},
                "rooms": {"count": len(rooms), "list": rooms[:_SHOWN]},
                "servers": [
                    {
                        "name": server.name,
                        "url": server.url,
                        "state": "silent" if server.lease_age > _LATE_SECONDS else server.state,
                        "connections": server.connections,
                    }
                    for server in sorted(servers, key=lambda server: server.name)
                ],
            },
        )

    async def run(self) -> None:
        """Follow presence events and push changes until cancelled; an unreachable Redis is waited for."""
        waited = 0
        while True:
            try:
                async with await self._helper.event_bus(self._online, self._offline):
                    self._pushed = {}
                    while True:
                        await self._push_changes()
                        waited = 0
                        await asyncio.sleep(_PUSH_SECONDS)
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._dirty.wait(), _TICK_SECONDS - _PUSH_SECONDS)
                        self._dirty.clear()
            except ImError as exc:
                if not waited:
                    log.warning("live view waits: %s", exc)
                waited += 1
                await asyncio.sleep(min(waited, 5))

    async def _push_changes(self) -> None:
        snapshot = await self.snapshot()
        changed = {name: value for name, value in snapshot.sections.items() if self._pushed.get(name) != value}
        if changed:
            await self._helper.send_chan_message(SENDER, LOBBY, {"type": "live", "rev": snapshot.rev, **changed})
            self._pushed = snapshot.sections

    def _online(self, client: str, metadata: str) -> None:
        self._name(client, metadata)

    def _offline(self, client: str, metadata: str) -> None:
        self._name(client, "")

    def _name(self, client: str, name: str) -> None:
        if name:
            self._names[client] = name
        else:
            self._names.pop(client, None)
        self.wake()
