"""The operator's admin port: /healthz, /readyz and /metrics.
Health means that reconciling goes on, not that a process exists."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .metrics import Metrics

__all__ = ["start_health"]


async def start_health(port: int, metrics: Metrics, problems: Callable[[], list[str]]) -> web.AppRunner:
    """Listen on the admin port; `problems` returns what is wrong, and nothing means 200. Raises OSError."""

    async def health(_: web.Request) -> web.Response:
        found = problems()
        return web.json_response({"ok": not found, "problems": found}, status=503 if found else 200)

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", health), web.get("/readyz", health), web.get("/metrics", numbers)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
