# One WebSocket connection of a chaos client, as light as two thousand of them in one process need it.
# Parses whole unmasked frames, masks with a zero key (RFC 6455 allows any), and reports every end exactly once.

import asyncio
from typing import Protocol, cast

__all__ = ["Owner", "Wire"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Owner(Protocol):
    """What a connection tells its owner. `down` comes last and once."""

    def opened(self, wire: "Wire") -> None: ...

    def frame(self, wire: "Wire", binary: bool, payload: bytes) -> None: ...

    def down(self, wire: "Wire", code: int) -> None: ...


class Wire(asyncio.Protocol):
    """One connection.

    `status` is the HTTP status once known, `broken` says what was wrong with what came, `tag` is its owner's to use.
    """

    def __init__(self, owner: Owner, url: str, since: str | None, *, envelope: bool) -> None:
        self.url = url
        self.since = since
        self.envelope = envelope
        self.status: int | None = None
        self.broken: str | None = None
        self.code = 1006
        self.tag = 0
        self._owner = owner
        self._buffer = b""
        self._ended = False
        self._transport: asyncio.Transport | None = None

    @property
    def server(self) -> str:
        """The URL without the token."""
        return self.url.partition("?")[0]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        host, _, target = self.url.removeprefix("ws://").partition("/")
        since = "" if self.since is None else f"&since={self.since}"
        lines = [f"GET /{target}{since} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {_KEY}", "Sec-WebSocket-Version: 13"]
        if self.envelope:
            lines.append("Sec-WebSocket-Protocol: imcluster.v1.json")
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if self.status is None:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            self._buffer = b""
            self.status = int(head[9:12])
            if self.status != 101:
                return
            if _ACCEPT not in head:
                self.broken = "the handshake's answer has a wrong Sec-WebSocket-Accept"
            self._owner.opened(self)
        elif self.status != 101:
            return
        self._frames(data)

    def _frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= 2 and not self._ended:
            first, size = data[at], data[at + 1]
            body = at + 2
            if size == 126:
                body += 2
            elif size == 127:
                body += 8
            if body > at + 2:
                if body > end:
                    break
                size = int.from_bytes(data[at + 2 : body], "big")
            if body + size > end:
                break
            at = body + size
            self._frame(first, data[body:at])
        self._buffer = data[at:]

    def _frame(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if not first & 0x80 or first & 0x70 or opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
            self.broken = f"a frame begins with {first:#x}"
            self.abort()
        elif opcode in (TEXT, BINARY):
            self._owner.frame(self, opcode == BINARY, payload)
        elif opcode == PING:
            self._send(PONG, payload)
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._send(CLOSE, payload[:2])
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._owner.down(self, self.code)

    def _send(self, opcode: int, payload: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        size = len(payload)
        head = (
            bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE, size >> 8, size & 255))
        )
        transport.write(head + b"\0\0\0\0" + payload)

    def text(self, payload: bytes) -> None:
        """Send one text frame."""
        self._send(TEXT, payload)

    def close(self) -> None:
        """Begin an orderly close: what the server wrote before it saw this still arrives."""
        self._send(CLOSE, b"\x03\xe8")

    def abort(self) -> None:
        """End as a lost network does: no close frame, and nothing more is read."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def pause(self) -> None:
        """Stop reading, as a client does that hangs."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
