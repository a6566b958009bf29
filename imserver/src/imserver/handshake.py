"""What an HTTP request asks for, and the answers that are not a WebSocket.
Pure: `websockets` has parsed the request; this decides from its path, query and headers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
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
    "Refusal",
    "Wanted",
    "inspect",
    "new_parser",
    "response",
]

ENVELOPE = Subprotocol("imcluster.v1.json")


class Wanted(NamedTuple):
    """A request for a WebSocket. The token is a secret."""

    token: str
    slot: int
    since: str | None
    envelope: bool


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
BAD_REQUEST = Refusal(HTTPStatus.BAD_REQUEST, "bad request", "this is no valid HTTP request", "bad_request")
TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too large", "the header fields are too large", "bad_request"
)


def _select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return ENVELOPE if ENVELOPE in offered else None


def new_parser() -> ServerProtocol:
    """A parser for one handshake. It knows the envelope's subprotocol and no extension."""
    return ServerProtocol(select_subprotocol=_select)


def inspect(request: Request, origins: Collection[str], slots: int) -> Wanted | Refusal:
    """Decide what a well-formed upgrade request asks for. Nothing of it is in Redis yet."""
    path, _, query = request.path.partition("?")
    if not path.endswith("/ws"):
        return Refusal(HTTPStatus.NOT_FOUND, "not found", "the path of a WebSocket ends with /ws", "not_found")
    if origins:
        found = request.headers.get_all("Origin")
        if len(found) != 1 or found[0] not in origins:
            return Refusal(HTTPStatus.FORBIDDEN, "forbidden", "this origin is not allowed", "forbidden")
    fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20)) if query.count("&") < 20 else {}
    token = fields.get("token", "")
    slot = slot_of_token(token, slots)
    if slot is None:
        return UNAUTHORIZED
    offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
    envelope = ENVELOPE in (p.strip() for p in offered.split(","))
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
