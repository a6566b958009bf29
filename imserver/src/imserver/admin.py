"""The admin port: /healthz, /readyz and /metrics over HTTP, apart from the public port.
`websockets` parses the requests; none of them becomes a WebSocket."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

__all__ = ["start_admin"]


def _answer(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = Headers(
        {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        | {"Connection": "close"}
    )
    return Response(status.value, status.phrase, headers, body)


async def _no_websocket(connection: ServerConnection) -> None:
    await connection.close(1008)


async def start_admin(
    port: int, registry: CollectorRegistry, health: Callable[[], list[str]], readiness: Callable[[], list[str]]
) -> Server:
    """Listen on the admin port. `health` and `readiness` return what is wrong; nothing means 200, else 503.

    Raises OSError when the port is taken.
    """

    def state(problems: list[str]) -> Response:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        body = json.dumps({"ok": not problems, "problems": problems}).encode() + b"\n"
        return _answer(status, "application/json", body)

    def process(connection: ServerConnection, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == "/metrics":
            return _answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
        if path == "/healthz":
            return state(health())
        if path == "/readyz":
            return state(readiness())
        return _answer(HTTPStatus.NOT_FOUND, "text/plain", b"/healthz, /readyz or /metrics\n")

    return await serve(_no_websocket, None, port, process_request=process, open_timeout=5, compression=None)
