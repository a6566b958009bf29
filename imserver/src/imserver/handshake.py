"""What an HTTP request asks for, and the answers that are not a WebSocket.
Pure: `websockets` has parsed the request; this decides from its path, query and headers."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Collection, Sequence
from hashlib import sha1
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from imhelper.core.tokens import slot_of_token

__all__ = [
    "BAD_REQUEST",
    "ENVELOPE",
    "TOO_LARGE",
    "UNAUTHORIZED",
    "Asked",
    "Refusal",
    "Wanted",
    "asked",
    "inspect",
    "new_parser",
    "quick",
    "response",
    "switching",
]

ENVELOPE = Subprotocol("imcluster.v1.json")
_HEAD = re.compile(
    rb"GET (/[\x21-\x7e]{0,4096}) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}:[\t\x20-\x7e]{0,4096}\r\n){1,64})\r\n"
)
_OFFERED = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[\t ]*,[\t ]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
_PROTOCOL_LINE = b"Sec-WebSocket-Protocol: " + ENVELOPE.encode() + b"\r\n"
# A request with one of these has a body or wants more than an upgrade: not for the quick way.
_UNUSUAL = frozenset((b"content-length", b"transfer-encoding", b"expect"))


class Asked(NamedTuple):
    """The parts of an upgrade request that matter. The path holds the token, a secret."""

    path: str
    origins: list[str]
    offered: str
    key: bytes

    def __repr__(self) -> str:
        return f"<Asked {self.path.partition('?')[0]!r} from {self.origins!r}>"


class Wanted(NamedTuple):
    """A request for a WebSocket. The token is a secret."""

    token: str
    slot: int
    since: str | None
    envelope: bool

    def __repr__(self) -> str:
        return f"<Wanted in slot {self.slot}, since {self.since!r}, envelope {self.envelope}>"


class Refusal(NamedTuple):
    """An answer that is not a WebSocket; `result` is the label it is counted under."""

    status: HTTPStatus
    error: str
    message: str
    result: str
    retry_after: int | None = None


UNAUTHORIZED = Refusal(
    HTTPStatus.UNAUTHORIZED,
    "unauthorized",
    "the token is missing, unknown, used or expired; ask your service for a new URL",
    "unauthorized",
)
NOT_FOUND = Refusal(HTTPStatus.NOT_FOUND, "not found", "the path of a WebSocket ends with /ws", "not_found")
BAD_REQUEST = Refusal(HTTPStatus.BAD_REQUEST, "bad request", "this is no valid HTTP request", "bad_request")
TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too large", "the header fields are too large", "bad_request"
)


def _select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return ENVELOPE if ENVELOPE in offered else None


def new_parser() -> ServerProtocol:
    """A parser for one handshake. It knows the envelope's subprotocol and no extension."""
    return ServerProtocol(select_subprotocol=_select)


def quick(data: bytes) -> Asked | None:
    """Read a request that came whole, in one piece and just as browsers and libraries write it.

    None for anything else, which `new_parser` then judges: so nothing here decides what is malformed. It takes a
    third off the CPU of a handshake.
    """
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    lines = [line.partition(b":") for line in found.group(2).split(b"\r\n")[:-1]]
    fields = {name.lower(): value.strip() for name, _, value in lines}
    if len(fields) != len(lines) or not _UNUSUAL.isdisjoint(fields):
        return None
    key = fields.get(b"sec-websocket-key", b"")
    if (
        fields.get(b"upgrade", b"").lower() != b"websocket"
        or b"upgrade" not in (t.strip() for t in fields.get(b"connection", b"").lower().split(b","))
        or fields.get(b"sec-websocket-version") != b"13"
        or b"host" not in fields
        or _KEY.fullmatch(key) is None
    ):
        return None
    origin, offered = fields.get(b"origin"), fields.get(b"sec-websocket-protocol")
    if offered is not None and _OFFERED.fullmatch(offered) is None:
        return None
    origins = [] if origin is None else [origin.decode()]
    return Asked(found.group(1).decode(), origins, (offered or b"").decode(), key)


def asked(request: Request) -> Asked:
    """The same of a request that `websockets` has parsed and accepted."""
    headers = request.headers
    offered = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
    key = headers.get("Sec-WebSocket-Key", "").encode()
    return Asked(request.path, headers.get_all("Origin"), offered, key)


def switching(asked: Asked, wanted: Wanted) -> bytes:
    """The 101 response (RFC 6455 section 4.2.2)."""
    accept = b64encode(sha1(asked.key + _GUID, usedforsecurity=False).digest())
    protocol = _PROTOCOL_LINE if wanted.envelope else b""
    return _SWITCHING + accept + b"\r\n" + protocol + b"\r\n"


def inspect(asked: Asked, origins: Collection[str], slots: int) -> Wanted | Refusal:
    """Decide what a well-formed upgrade request asks for. Nothing of it is in Redis yet."""
    path, _, query = asked.path.partition("?")
    if not path.endswith("/ws"):
        return NOT_FOUND
    if origins and (len(asked.origins) != 1 or asked.origins[0] not in origins):
        return Refusal(HTTPStatus.FORBIDDEN, "forbidden", "this origin is not allowed", "forbidden")
    fields = dict(parse_qsl(query, keep_blank_values=True)) if query.count("&") < 20 else {}
    token = fields.get("token", "")
    slot = slot_of_token(token, slots)
    if slot is None:
        return UNAUTHORIZED
    envelope = ENVELOPE in (p.strip() for p in asked.offered.split(","))
    return Wanted(token, slot, fields.get("since"), envelope)


def response(refusal: Refusal) -> bytes:
    """The whole HTTP response of a refusal, with a JSON body."""
    body = json.dumps({"error": refusal.error, "message": refusal.message}).encode()
    lines = [
        f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if refusal.retry_after is not None:
        lines.append(f"Retry-After: {refusal.retry_after}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
