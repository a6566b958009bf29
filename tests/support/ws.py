# A small WebSocket client for tests: frames as they come, each wait with a limit, nothing hidden.
# It neither reconnects nor de-duplicates; that is the browser client's work.

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

ENVELOPE = Subprotocol("imcluster.v1.json")


class Socket:
    """One open WebSocket; `raw` is the connection of `websockets`."""

    def __init__(self, raw: ClientConnection) -> None:
        self.raw = raw

    async def recv(self, timeout: float = 10) -> str | bytes:
        """The next frame; `ConnectionClosed` when the server has closed."""
        return await asyncio.wait_for(self.raw.recv(), timeout)

    async def recv_json(self, timeout: float = 10) -> Any:
        """The next frame, parsed; in envelope mode a dict with a `t`."""
        return json.loads(await self.recv(timeout))

    async def recv_kind(self, kind: str, timeout: float = 10) -> dict[str, Any]:
        """The next envelope whose `t` is `kind`; those of other kinds before it are passed over."""
        async with asyncio.timeout(timeout):
            while True:
                envelope: dict[str, Any] = json.loads(await self.raw.recv())
                if envelope["t"] == kind:
                    return envelope

    async def send(self, frame: str | bytes) -> None:
        await asyncio.wait_for(self.raw.send(frame), 10)

    async def send_json(self, value: object) -> None:
        await self.send(json.dumps(value))

    async def ack(self, pos: str) -> None:
        await self.send_json({"t": "ack", "pos": pos})

    async def closed(self, timeout: float = 10) -> tuple[int | None, str]:
        """Wait for the end of the connection, passing over frames: the server's close code and reason.

        The code is 1006 when the connection ended without a close frame.
        """
        async with asyncio.timeout(timeout):
            try:
                while True:
                    await self.raw.recv()
            except ConnectionClosed as end:
                return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (1006, "")

    def abort(self) -> None:
        """End the TCP connection without a close frame, as a lost network does."""
        self.raw.transport.abort()


@asynccontextmanager
async def open_socket(
    url: str,
    *,
    envelope: bool = False,
    since: str | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    timeout: float = 10,
) -> AsyncIterator[Socket]:
    """Connect to a URL of `prev_connect_server` and close at the end of the block.

    Args:
        url: with its token; works once.
        envelope: ask for `imcluster.v1.json`; otherwise plain mode.
        since: a POS to resume from.
        origin: the `Origin` header, as browsers send it.
        subprotocols: asked for in addition.
        timeout: seconds for the handshake.

    Raises:
        websockets.exceptions.InvalidStatus: refused; `.response` has the status, headers and body.
    """
    if since is not None:
        url = f"{url}{'&' if '?' in url else '?'}since={quote(since, safe='')}"
    offered = [ENVELOPE] * envelope + [Subprotocol(name) for name in subprotocols]
    async with connect(
        url,
        subprotocols=offered or None,
        origin=None if origin is None else Origin(origin),
        compression=None,
        proxy=None,
        ping_interval=None,
        open_timeout=timeout,
        close_timeout=5,
        max_size=None,
        max_queue=None,
    ) as raw:
        yield Socket(raw)
