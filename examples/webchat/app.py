# The web chat put together: the page, the JS client, ImCore's endpoints, file transfers and the live view.
# Everything a browser gets from here carries a content security policy that runs no script but the page's own.
from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imhelper import ImHelper

from . import imcore, transfers
from .errors import BadInput, answer_failures
from .filestore import FileStore
from .forms import clean_name, read_form
from .live import Live
from .settings import STATIC, Settings

log = logging.getLogger("webchat")

MAX_ROOMS = 50
"""How many rooms one page may ask to be in again after a reconnect."""
_SWEEP_SECONDS = 30.0

# ws: and wss: are open because imservers come and go under their own names; the page only goes where it is told.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _SecurityHeaders:
    """Adds the headers that every answer needs and that a route has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def create_app(settings: Settings, helper: ImHelper | None = None) -> ASGIApp:
    """The web chat as an ASGI application.

    helper: one of the caller's own (a `FakeImHelper` in tests), which the caller closes; by default one is made from
    the settings and closed with the application.
    """
    im = helper or settings.connect()
    live = Live(im)
    folder = Path(tempfile.gettempdir()) / f"imcluster-webchat-{secrets.token_hex(8)}"
    store = FileStore(
        folder,
        max_bytes=settings.file_max_bytes,
        total_bytes=settings.files_total_bytes,
        seconds=settings.file_seconds,
    )
    background: list[asyncio.Task[None]] = []

    async def sweep() -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            store.expire()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        folder.mkdir(mode=0o700)
        background.extend([asyncio.create_task(live.run(), name="live"), asyncio.create_task(sweep(), name="sweep")])
        for task in background:
            task.add_done_callback(_say_why)
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if helper is None:
                await im.close()
            shutil.rmtree(folder)

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def health(_: Request) -> Response:
        dead = [task.get_name() for task in background if task.done()]
        return JSONResponse({"ok": not dead, "ended": dead}, 503 if dead else 200)

    async def enter(request: Request) -> Response:
        form = await read_form(request)
        client = form.client("websocketId")
        rooms = form.channels("channel", MAX_ROOMS)
        if not await live.enter(client, clean_name(form.optional("name"))):
            raise BadInput(f"{client} is not online: connect its WebSocket first.", 409)
        for room in rooms:
            await im.join_chan(client, room)
        snapshot = await live.snapshot()
        mine = await im.get_chan_list_by_client_id(client)
        limits = {"fileBytes": settings.file_max_bytes, "fileSeconds": settings.file_seconds}
        return JSONResponse({"code": 0, "live": snapshot.as_json(), "rooms": mine, "limits": limits})

    async def leave_channel(request: Request) -> Response:
        form = await read_form(request)
        left = await im.leave_chan(form.client("websocketId"), form.channel())
        live.wake()
        return JSONResponse({"code": 0, "left": left})

    return _SecurityHeaders(
        Starlette(
            lifespan=lifespan,
            routes=[
                Route("/", page),
                Route("/healthz", health),
                *imcore.routes(im, live),
                *transfers.routes(im, store),
                Route("/api/enter", answer_failures(enter, imcore=False), methods=["POST"]),
                Route("/api/leave-channel", answer_failures(leave_channel, imcore=False), methods=["POST"]),
                Mount("/client", StaticFiles(directory=settings.client_js)),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
        )
    )


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.critical("the task %s ended; /healthz says so", task.get_name(), exc_info=task.exception())
