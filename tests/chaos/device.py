# A device of a chaos client: keeps one socket open as clients/js does (full-jitter backoff, since, move, avoid, acks).
# A plain one does what ImCore's clients do: it asks for a new URL and opens it.

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any

from imhelper.errors import ImError
from tests.chaos.ledger import Client, Connection, DeviceBook, Ledger, Receipt, now
from tests.chaos.wire import Wire

__all__ = ["Device", "uid_of"]

GetUrl = Callable[[str, str | None], Awaitable[str]]
BACKOFF_SECONDS = 0.25
BACKOFF_MAX_SECONDS = 5.0
STABLE_SECONDS = 5.0
HANDSHAKE_SECONDS = 5.0
PONG_SECONDS = 3.0
ACK_SECONDS = 0.1


def uid_of(data: object) -> int:
    """The number of a message from its payload, in each of the forms that traffic.py sends. ValueError for others."""
    if isinstance(data, bytes):
        data = data.decode()
    if isinstance(data, str):
        if data.startswith("{"):
            data = json.loads(data)
        else:
            return int(data.split(" ", 1)[0])
    if isinstance(data, dict) and isinstance(data.get("u"), int):
        return int(data["u"])
    raise ValueError(f"a payload that nobody sent: {data!r}")


class Device:
    """Connects when told to and stays connected until told to go."""

    def __init__(self, ledger: Ledger, client: Client, get_url: GetUrl, seed: int) -> None:
        self.ledger = ledger
        self.client = client
        self.envelope = client.envelope
        self.book = DeviceBook(client.number, client.envelope)
        client.devices.append(self.book)
        self.wanted = False
        self.pos: str | None = None
        self._acked: str | None = None
        self._due = False
        self._get_url = get_url
        self._random = random.Random(seed)
        # Some clients are deaf to `move`: the server closes their sockets when its time is over.
        self._deaf = self._random.random() < 0.05
        self._avoid: str | None = None
        self._attempts = 0
        self._wire: Wire | None = None
        self._candidate: Wire | None = None
        self._hanging: Wire | None = None
        self._hello: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost_at: float | None = None
        self._heard = 0.0
        self._pinged: float | None = None
        self._ping_seconds = 25.0
        self._leaving: dict[Wire, Connection] = {}

    @property
    def connected(self) -> bool:
        return self._wire is not None

    @property
    def server(self) -> str | None:
        """The URL of the server that holds the socket."""
        return self._wire.server if self._wire is not None else None

    # What the run asks for.

    def start(self) -> None:
        """Connect, and stay so."""
        self.wanted = True
        if self._wire is None:
            self._again(0.0)

    def leave(self) -> None:
        """Close in order; what is on its way still arrives."""
        self.wanted = False
        self._lost_at = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._wire is not None:
            wire, self._wire = self._wire, None
            self._retire(wire)
        if self._candidate is not None:
            self._candidate.abort()
            self._candidate = None

    def cut(self) -> None:
        """Lose the connection as a network does."""
        if self._wire is not None:
            self.book.connections[-1].orderly = False
            self._wire.abort()

    def stop_reading(self) -> bool:
        """Hang, as a client does that has too much to do. False when there is nothing to read from."""
        if self._wire is None:
            return False
        # What the kernels hold when the server gives up is lost to a plain client, as with a cut.
        connection = self.book.connections[-1]
        connection.slow, connection.orderly = now(), False
        self._hanging = self._wire
        self._wire.pause()
        return True

    def read_again(self) -> None:
        """Go on."""
        wire, self._hanging = self._hanging, None
        if wire is not None:
            wire.resume()
        self._heard = now()

    def forget(self) -> None:
        """Start as a page without memory: nothing to resume from."""
        self.pos = None

    def tick(self, time: float) -> None:
        """Called a few times a second: pings, and the end of a server that does not answer."""
        wire = self._wire
        if wire is None or not self.envelope or wire is self._hanging:
            return
        if self._pinged is not None and time - self._pinged > PONG_SECONDS:
            self.book.connections[-1].orderly = False
            wire.abort()
        elif self._pinged is None and time - self._heard > self._ping_seconds:
            self._pinged = time
            wire.text(b'{"t":"ping"}')

    # Connecting.

    def _again(self, delay: float, url: str | None = None) -> None:
        if self.wanted and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._connect(delay, url))

    def _backoff(self, exponent: int = 1) -> float:
        top = min(BACKOFF_MAX_SECONDS, BACKOFF_SECONDS * 2.0 ** min(self._attempts + exponent, 20))
        self._attempts += 1
        return self._random.uniform(0, top)

    async def _connect(self, delay: float, url: str | None) -> None:
        while self.wanted:
            await asyncio.sleep(delay)
            try:
                if url is None:
                    url = await self._get_url(self.client.client_id, self._avoid)
                await self._open(url)
                if self.connected:
                    return
                # Lost again before this task had its turn.
            except ImError as error:
                self.ledger.errors[f"prev_connect_server: {type(error).__name__}"] += 1
            except (OSError, TimeoutError) as error:
                self.ledger.errors[f"connecting: {type(error).__name__}"] += 1
                self._avoid = url.partition("?")[0] if url else None
            url = None
            delay = self._backoff()

    async def _open(self, url: str) -> None:
        since = self.pos if self.envelope else None
        wire = Wire(self, url, since, envelope=self.envelope)
        host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        self._candidate = wire
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await loop.create_connection(lambda: wire, host, int(port))
                await self._hello
        except BaseException:
            # Even one that is in use by now: the event loop has closed it without a word.
            self._candidate = None
            if wire is self._wire:
                self.cut()
            elif wire.status in (None, 101):
                self.book.given_up.append(now())
            wire.abort()
            raise

    # What a connection reports.

    def opened(self, wire: Wire) -> None:
        """101. A plain socket is in use from here, an envelope one from its hello."""
        self.ledger.opened.append(now())
        if not self.envelope:
            self._promote(wire, None)

    def _promote(self, wire: Wire, recovered: bool | None) -> None:
        old, self._wire = self._wire, wire
        if wire is self._candidate:
            self._candidate = None
        if old is not None:
            self._retire(old)
        time = now()
        if self._lost_at is not None:
            self.book.reconnects.append(time - self._lost_at)
            self._lost_at = None
        wire.tag = len(self.book.connections)
        self.book.connections.append(Connection(wire.server, time, recovered, wire.since is not None))
        self._avoid = None
        self._pinged = None
        self._heard = time
        if self._hello is not None and not self._hello.done():
            self._hello.set_result(None)
        if not self.wanted:
            self.leave()

    def _retire(self, wire: Wire) -> None:
        """Close a socket that another one takes over from; what it still gives is taken."""
        self._leaving[wire] = self.book.connections[-1]
        wire.close()
        # A server that does not answer the close must not hold it open for ever.
        asyncio.get_running_loop().call_later(5.0, wire.abort)

    def frame(self, wire: Wire, binary: bool, payload: bytes) -> None:
        """One data frame."""
        if wire is self._wire:
            self._heard = now()
            self._pinged = None
        if not self.envelope:
            self._plain(wire, payload)
            return
        try:
            frame = json.loads(payload)
            kind = frame["t"]
        except (ValueError, KeyError, TypeError):
            self.book.alien.append(repr(payload[:200]))
            return
        if kind == "msg":
            self._message(wire, frame)
        elif kind == "hello":
            self._hello_frame(wire, frame)
        elif kind == "receipt":
            self._take_receipt((frame["id"], self.ledger.number_of(frame["to"])), frame["status"])
            self._moved_to(frame["pos"])
        elif kind == "pong":
            if wire is self._wire:
                self.pos = frame["pos"]
        elif kind == "move":
            if wire is self._wire:
                self.pos = frame["pos"]
                if not self._deaf:
                    self._again(0.0, frame["url"])
        else:
            self.book.alien.append(repr(frame)[:200])

    def _hello_frame(self, wire: Wire, frame: dict[str, Any]) -> None:
        if wire is self._wire or frame["client"] != self.client.client_id:
            self.book.alien.append(f"a hello that is not due: {frame!r}")
        self._ping_seconds = float(frame["ping"])
        if not frame["recovered"]:
            self.pos = frame["pos"]
        elif frame["pos"] != wire.since:
            self.book.alien.append(f"recovered, but pos is not since ({wire.since}): {frame!r}")
        self._promote(wire, bool(frame["recovered"]))

    def _message(self, wire: Wire, frame: dict[str, Any]) -> None:
        try:
            data = frame["data"]
            uid = uid_of(data if not frame.get("b64") else b64decode(data))
        except (ValueError, KeyError):
            self.book.alien.append(repr(frame)[:200])
            return
        if self.book.took(uid, frame["id"], wire.tag):
            self._moved_to(frame["pos"])

    def _moved_to(self, pos: str) -> None:
        self.pos = pos
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(ACK_SECONDS * self._random.uniform(0.2, 2.0), self._ack)

    def _ack(self) -> None:
        self._due = False
        if self._wire is not None and self.pos is not None:
            self._wire.text(b'{"t":"ack","pos":"' + self.pos.encode() + b'"}')

    def _plain(self, wire: Wire, payload: bytes) -> None:
        try:
            if payload.startswith(b'{"content"'):
                receipt = json.loads(payload)
                content = receipt["content"]
                self._take_receipt((uid_of(content), None), receipt["receipt"])
            else:
                self.book.took(uid_of(payload), None, wire.tag)
        except (ValueError, KeyError):
            self.book.alien.append(repr(payload[:200]))

    def _take_receipt(self, key: tuple[object, int | None], status: str) -> None:
        self.book.receipts[key].append(Receipt(now(), "offline" if status == "user not online" else status))

    def down(self, wire: Wire, code: int) -> None:
        """A connection has ended."""
        if wire.broken:
            self.book.alien.append(wire.broken)
        left = self._leaving.pop(wire, None)
        if left is not None:
            left.closed = now()
            left.code = code
            return
        if wire is self._candidate:
            if wire.status is not None and wire.status != 101:
                self.ledger.refused[wire.status] += 1
            if self._hello is not None and not self._hello.done():
                self._hello.set_exception(ConnectionError(f"HTTP {wire.status}"))
            return
        if wire is not self._wire:
            return
        self._wire = None
        self.ledger.closes[code] += 1
        connection = self.book.connections[-1]
        connection.closed = self._lost_at = now()
        connection.code = code
        if connection.closed - connection.opened > STABLE_SECONDS:
            self._attempts = 0
        if code >= 4500:
            self.leave()
            return
        self._avoid = wire.server if code < 4000 else None
        self._again(self._backoff(0 if code == 1012 or code >= 4000 else 1))
