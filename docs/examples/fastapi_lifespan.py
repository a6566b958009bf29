"""FastAPI: one helper for the whole application, opened and closed by its lifespan.
Run it: IM_REDIS_URL=redis://localhost uvicorn fastapi_lifespan:app"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from imhelper import ImHelper, NoServerError, RedisUnavailableError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with ImHelper(os.environ["IM_REDIS_URL"]) as im:

        async def online(client_id: str, metadata: str) -> None:
            await im.join_chan(client_id, "lobby")

        # With a group, each event goes to one of the processes that run this application.
        async with await im.event_bus(online, lambda client_id, metadata: None, group="lobby"):
            app.state.im = im
            yield


app = FastAPI(lifespan=lifespan)


def helper(request: Request) -> ImHelper:
    im: ImHelper = request.app.state.im
    return im


def current_user(x_user: Annotated[str, Header()]) -> str:
    # In your application: who the session or the bearer token says it is. Never let a client name itself.
    return x_user


Im = Annotated[ImHelper, Depends(helper)]
User = Annotated[str, Depends(current_user)]


@app.post("/connect")
async def connect(im: Im, user: User, failed: str | None = None) -> dict[str, str]:
    """The browser asks here for a URL before each WebSocket; `failed` is the one that it could not reach."""
    try:
        return {"url": await im.prev_connect_server(user, avoid=failed)}
    except (NoServerError, RedisUnavailableError) as error:
        raise HTTPException(503, "try again in a moment", {"Retry-After": "1"}) from error


@app.post("/say")
async def say(im: Im, user: User, text: str) -> dict[str, str]:
    return {"id": await im.send_chan_message(user, "lobby", {"from": user, "text": text})}
