# How failures look to a caller: one sentence, and a status that says whose turn it is.
# ImCore's endpoints answer bad input with code 1 (its front ends read the body only); newer ones with 4xx.
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from imhelper import (
    ImError,
    InvalidIdError,
    MessageError,
    NoServerError,
    RedisUnavailableError,
    SettingError,
    TopologyError,
)

log = logging.getLogger("webchat")

Endpoint = Callable[[Request], Awaitable[Response]]


class BadInput(Exception):
    """What the caller sent can't be used; `str()` is a sentence for the caller."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def _refusal(exc: Exception) -> tuple[int, str]:
    if isinstance(exc, NoServerError):
        return 503, "No push server is running just now; try again in a few seconds."
    if isinstance(exc, RedisUnavailableError):
        return 503, "Redis can't be reached just now; nothing is lost, try again in a few seconds."
    if isinstance(exc, TopologyError):
        return 503, f"The cluster's topology can't be read: {exc}"
    if isinstance(exc, BadInput):
        return exc.status, str(exc)
    if isinstance(exc, (MessageError, InvalidIdError, SettingError)):
        return 400, str(exc)
    if isinstance(exc, ImError):
        return 503, str(exc)
    if isinstance(exc, HTTPException):
        return exc.status_code, exc.detail
    raise exc


def answer_failures(endpoint: Endpoint, *, imcore: bool) -> Endpoint:
    """Wrap an endpoint so that what callers can cause becomes `{"code":1,"msg":…}` instead of a traceback.

    imcore: answer bad input with status 200, as ImCore's front ends expect.
    """

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as exc:
            status, message = _refusal(exc)
            if status >= 500:
                log.warning("%s: %s", request.url.path, exc)
            if imcore and status == 400:
                status = 200
            headers = {"Retry-After": "2"} if status == 503 else None
            return JSONResponse({"code": 1, "msg": message}, status, headers)

    return answer
