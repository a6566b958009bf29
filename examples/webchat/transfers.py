# ImCore's second example: one user sends another a file through the web service.
# While it goes, the receiver gets progress messages, each with a receipt to the sender, pushed through ImCluster.
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from imhelper import ImError, ImHelper

from .errors import BadInput, answer_failures
from .filestore import FileStore, Transfer
from .forms import Form, clean_name
from .live import SENDER

log = logging.getLogger("webchat")

_STEPS = 20
"""A transfer is told of in at most so many steps, however large or fast it is."""
_IDLE_SECONDS = 30.0
"""An upload that sends nothing for so long is given up."""
_DOWNLOAD_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _Notices:
    """Tells both ends of one transfer how it goes."""

    def __init__(self, helper: ImHelper, transfer: Transfer, sender: str, receiver: str, query: Form) -> None:
        self._helper = helper
        self._transfer = transfer
        self._sender = sender
        self._receiver = receiver
        self._about = {"fromName": clean_name(query.optional("senderName")), "key": (query.optional("key") or "")[:64]}
        self._told = -1

    async def progress(self) -> None:
        """Tell of the step reached, if it is a new one; a push that fails costs a step, not the transfer."""
        step = self._transfer.received * _STEPS // self._transfer.size if self._transfer.size else _STEPS
        if step == self._told:
            return
        self._told = step
        try:
            await self._tell("progress")
        except ImError as exc:
            log.warning("progress of file %s was not pushed: %s", self._transfer.id, exc)

    async def done(self, url: str, seconds: float) -> str:
        """Give the receiver the link, good for `seconds`; returns the message's id, which the receipt will name."""
        return await self._tell("done", {"url": url, "seconds": seconds})

    async def failed(self, reason: str) -> None:
        """Tell both that nothing more comes."""
        try:
            await self._tell("failed", reason=reason)
        except ImError as exc:
            log.warning("the end of file %s was not pushed: %s", self._transfer.id, exc)

    async def _tell(self, stage: str, for_receiver: Mapping[str, Any] = _NOTHING, *, reason: str = "") -> str:
        transfer = self._transfer
        notice: dict[str, Any] = {
            "type": "file",
            "stage": stage,
            "reason": reason,
            "file": transfer.id,
            "name": transfer.name,
            "size": transfer.size,
            "received": transfer.received,
            "from": self._sender,
            "to": self._receiver,
            **self._about,
        }
        message_id = await self._helper.send_message(
            self._sender, self._receiver, {**notice, **for_receiver}, receipt=True
        )
        await self._helper.send_message(SENDER, self._sender, {**notice, "id": message_id})
        return message_id


def routes(helper: ImHelper, store: FileStore) -> list[Route]:
    """The upload and the download, bound to a helper and a store."""

    async def upload(request: Request) -> Response:
        query = Form(request.query_params.multi_items())
        sender, receiver = query.client("sender"), query.client("receiver")
        if sender == receiver:
            raise BadInput("A file is sent to someone else.")
        size = _announced(request)
        online = await helper.has_online_many([sender, receiver])
        for client in (sender, receiver):
            if not online[client]:
                raise BadInput(f"{client} is not online.", 409)
        transfer = store.reserve(query.text("name"), size)
        notices = _Notices(helper, transfer, sender, receiver, query)
        reason = "The upload broke off."
        try:
            async with asyncio.timeout(store.seconds):
                await _receive(request.stream(), transfer, notices)
            message_id = await notices.done(request.url_for("download", token=transfer.token).path, store.seconds)
        except TimeoutError:
            reason = "The upload took too long."
            raise BadInput(reason, 408) from None
        except BadInput as exc:
            reason = str(exc)
            raise
        finally:
            if not transfer.complete:
                store.remove(transfer)
                await notices.failed(reason)
        return JSONResponse({"code": 0, "file": transfer.id, "id": message_id})

    async def download(request: Request) -> Response:
        transfer = store.find(request.path_params["token"])
        if transfer is None:
            raise BadInput("There is no such file, or its time is over.", 404)
        return FileResponse(
            transfer.path,
            filename=transfer.name,
            media_type="application/octet-stream",
            content_disposition_type="attachment",
            headers=_DOWNLOAD_HEADERS,
        )

    return [
        Route("/api/files", answer_failures(upload, imcore=False), methods=["POST"]),
        Route("/files/{token}", answer_failures(download, imcore=False), methods=["GET"], name="download"),
    ]


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        raise BadInput("A file's size must be announced with Content-Length.", 411)
    return int(length)


async def _receive(stream: AsyncIterator[bytes], transfer: Transfer, notices: _Notices) -> None:
    await notices.progress()
    try:
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            transfer.write(chunk)
            await notices.progress()
    except ClientDisconnect as exc:
        raise BadInput("The upload broke off.") from exc
    transfer.close()
    if not transfer.complete:
        raise BadInput("The upload broke off.")
