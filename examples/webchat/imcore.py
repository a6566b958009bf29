# ImCore's demo endpoints, form for form, so that its old front ends work against an ImCluster.
# Fields that ImCore does not know (avoid, name, key) are optional extras for the page of this folder.
from __future__ import annotations

import json
import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imhelper import ImHelper

from .errors import BadInput, answer_failures
from .forms import RESERVED, clean_name, read_form
from .live import Live


def as_imcore(message: str) -> str:
    """The payload for a text as ImCore sends it: encoded as JSON once more, and its front ends decode it twice."""
    return json.dumps(message, ensure_ascii=False)


def routes(helper: ImHelper, live: Live) -> list[Route]:
    """The five endpoints of ImCore's demo, bound to a helper."""

    async def pre_connect(request: Request) -> Response:
        form = await read_form(request)
        client = form.client("websocketId") if form.optional("websocketId") else str(uuid.uuid4())
        name = clean_name(form.optional("name"))
        server = await helper.prev_connect_server(client, name, avoid=form.optional("avoid"))
        live.name(client, name)
        return JSONResponse({"code": 0, "server": server, "websocketId": client})

    async def get_channels(request: Request) -> Response:
        channels = [
            {"chan": chan, "online": online}
            for chan, online in await helper.get_chan_list()
            if not chan.startswith(RESERVED)
        ]
        return JSONResponse({"code": 0, "channels": channels})

    async def subscr_channel(request: Request) -> Response:
        form = await read_form(request)
        client = form.client("websocketId")
        if not await helper.join_chan(client, form.channel()):
            raise BadInput(f"{client} is not online: connect its WebSocket first, then join.")
        live.wake()
        return JSONResponse({"code": 0})

    async def send_channelmsg(request: Request) -> Response:
        form = await read_form(request)
        message_id = await helper.send_chan_message(
            form.client("websocketId"),
            form.channel(),
            as_imcore(form.text("message")),
            idempotency_key=form.optional("key"),
        )
        return JSONResponse({"code": 0, "id": message_id})

    async def send_msg(request: Request) -> Response:
        form = await read_form(request)
        message_id = await helper.send_message(
            form.client("senderWebsocketId"),
            form.client("receiveWebsocketId"),
            as_imcore(form.text("message")),
            form.flag("isReceipt"),
            idempotency_key=form.optional("key"),
        )
        return JSONResponse({"code": 0, "id": message_id})

    endpoints = {
        "/ws/pre-connect": pre_connect,
        "/ws/get-channels": get_channels,
        "/ws/subscr-channel": subscr_channel,
        "/ws/send-channelmsg": send_channelmsg,
        "/ws/send-msg": send_msg,
    }
    return [
        Route(path, answer_failures(endpoint, imcore=True), methods=["POST"]) for path, endpoint in endpoints.items()
    ]
