"""WebSocket frames, as few as a push server needs on its hot path (RFC 6455 section 5).
Builds unmasked frames; parses the short, whole, masked frames that clients send. All else is `websockets`' work."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

__all__ = ["BINARY", "PING", "PING_FRAME", "PONG", "TEXT", "close_frame", "frame", "short_frames"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PING_FRAME = b"\x89\x00"


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole unmasked frame."""
    size = len(payload)
    if size < 126:
        return pack("!BB", 0x80 | opcode, size) + payload
    if size < 65536:
        return pack("!BBH", 0x80 | opcode, 126, size) + payload
    return pack("!BBQ", 0x80 | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to the 123 bytes that fit."""
    text = reason.encode()[:123]
    return frame(CLOSE, pack("!H", code) + text.decode(errors="ignore").encode())


def short_frames(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The leading frames of `data` that are whole, masked, at most 125 bytes long, unfragmented and not a close.

    Yields (opcode, payload, offset after the frame) and stops at the first that is anything else: from that offset
    on the caller lets the full parser decide. So nothing here has to judge what is malformed.
    """
    at, end = 0, len(data)
    while end - at >= 6:
        first, length = data[at], data[at + 1]
        size = length & 0x7F
        if first not in (0x81, 0x82, 0x89, 0x8A) or length < 0x80 or size > 125 or end - at < 6 + size:
            return
        body = at + 6
        at = body + size
        if size:
            key = data[body - 4 : body] * (size // 4 + 1)
            mixed = int.from_bytes(data[body:at], "big") ^ int.from_bytes(key[:size], "big")
            yield first & 0x0F, mixed.to_bytes(size, "big"), at
        else:
            yield first & 0x0F, b"", at
