# HTTP and WebSocket bytes as no library would send them: half requests, wrong frames, clients that do not read.
# It speaks just enough of RFC 6455 to say what came back.

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "h",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Response(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """The code of a close frame."""
        assert self.opcode == CLOSE
        return int(struct.unpack("!H", self.payload[:2])[0])


def request(target: str, fields: Mapping[str, str] = UPGRADE, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A whole request head."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame as a client sends it, or as it must not."""
    size, bit = len(payload), 0x80 * masked
    head = bytes([0x80 * fin | rsv << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


class Raw:
    """One TCP connection; each wait has a limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), 10)

    async def response(self, timeout: float = 10) -> Response:
        """The next HTTP response."""
        async with asyncio.timeout(timeout):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.strip().split("\r\n")
            fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(fields.get("content-length", 0)))
            return Response(int(status.split(" ")[1]), fields, body)

    async def frame(self, timeout: float = 10) -> Frame:
        """The next frame; `IncompleteReadError` at the end of the connection."""
        async with asyncio.timeout(timeout):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                [size] = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                [size] = struct.unpack("!Q", await self.reader.readexactly(8))
            return Frame(first & 0x0F, await self.reader.readexactly(size))

    async def until_close(self, timeout: float = 10) -> Frame:
        """The close frame, passing over others."""
        async with asyncio.timeout(timeout):
            while (found := await self.frame(timeout)).opcode != CLOSE:
                pass
            return found

    async def ended(self, timeout: float = 15) -> bytes:
        """All that comes until the server ends the connection (a reset counts as an end)."""
        async with asyncio.timeout(timeout):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def reset(self) -> None:
        """End the connection as a crashed client does: by RST, at once."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def raw(port: int, *, receive_buffer: int | None = None, limit: int = 2**16) -> AsyncIterator[Raw]:
    """A TCP connection to a port. `receive_buffer` and `limit` bound what is taken in before somebody reads."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_socket(url: str, *, envelope: bool = False, **options: int | None) -> AsyncIterator[Raw]:
    """A WebSocket after its 101, without a library behind it."""
    host, _, rest = url.removeprefix("ws://").partition("/")
    fields = UPGRADE | ({"Sec-WebSocket-Protocol": "imcluster.v1.json"} if envelope else {})
    async with raw(int(host.rpartition(":")[2]), **options) as connection:  # type: ignore[arg-type]
        await connection.send(request("/" + rest, fields))
        answer = await connection.response()
        assert answer.status == 101, answer
        yield connection
