# The browser client in a real Chromium, against a small server that speaks envelope mode as each test tells it to.
# What only a browser has is tried here: its WebSocket, sessionStorage over a reload, going offline and back.

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

SOURCES = Path(__file__).resolve().parents[2] / "clients" / "js" / "src"
PATIENCE_SECONDS = 15
PING_SECONDS = 25

PAGE = """<!doctype html><title>imcluster-client</title><script type="module">
import { ImClient, sessionPosition } from "./src/index.js";
const told = [];
const show = (value) => value instanceof Uint8Array ? { bytes: [...value] } : value;
const start = (options = {}) => {
  const client = new ImClient({
    getUrl: async ({ signal, ...request }) => {
      const response = await fetch("/url?" + new URLSearchParams({ request: JSON.stringify(request) }), { signal });
      return response.text();
    },
    backoff: { baseMs: 20 },
    ...options,
  });
  for (const type of ["open", "gap", "receipt", "state"]) {
    client.on(type, (event) => told.push([type, event]));
  }
  client.on("message", async ({ id, from, chan, data }) => {
    told.push(["message", { id, from, chan, data: show(data) }]);
  });
  client.on("error", ({ kind, message }) => told.push(["error", { kind, message }]));
  client.connect();
  return client;
};
Object.assign(window, { start, told, sessionPosition });
</script>"""


class Peer:
    """One socket, from the server's side."""

    def __init__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        self.connection = connection
        self.token = query["token"][0]
        self.since = query.get("since", [None])[0]

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"t": kind, **fields}))

    async def hello(
        self, pos: str, *, recovered: bool = False, server: str = "im-0", ping: float = PING_SECONDS
    ) -> None:
        await self.send("hello", client="ann", server=server, pos=pos, recovered=recovered, ping=ping)

    async def msg(self, name: str, pos: str, data: Any = None, **fields: Any) -> None:
        await self.send("msg", id=name, pos=pos, data=data, **{"from": "bob", **fields})

    async def recv(self) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return json.loads(await self.connection.recv())

    async def closed(self) -> int | None:
        """The close code that the browser sent."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as end:
                return end.rcvd.code if end.rcvd is not None else None


class Backend:
    """The app's backend and an imserver in one: it serves the page, gives URLs and takes sockets."""

    def __init__(self) -> None:
        self.base = ""
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[HTTPStatus] = []
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._tokens = 0

    def url(self) -> str:
        """A URL with a token of its own."""
        self._tokens += 1
        return f"ws://{self.base}/ws?token=t{self._tokens}"

    async def peer(self) -> Peer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._peers.get()

    async def handle(self, connection: ServerConnection) -> None:
        self._peers.put_nowait(Peer(connection))
        await connection.wait_closed()

    def answer(self, _: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if parts.path == "/ws":
            return _response(self.refusals.pop(0), "text/plain", "no") if self.refusals else None
        if parts.path == "/":
            return _response(HTTPStatus.OK, "text/html", PAGE)
        if parts.path == "/url":
            self.requests.append(json.loads(parse_qs(parts.query)["request"][0]))
            return _response(HTTPStatus.OK, "text/plain", self.url())
        source = SOURCES / Path(parts.path).name
        if parts.path.startswith("/src/") and source.is_file():
            return _response(HTTPStatus.OK, "text/javascript", source.read_text())
        return _response(HTTPStatus.NOT_FOUND, "text/plain", "")


def _response(status: HTTPStatus, kind: str, text: str) -> Response:
    body = text.encode()
    headers = Headers([("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")])
    return Response(status.value, status.phrase, headers, body)


@asynccontextmanager
async def run_backend() -> AsyncIterator[Backend]:
    backend = Backend()
    server: Server
    async with serve(
        backend.handle,
        "127.0.0.1",
        0,
        process_request=backend.answer,
        subprotocols=[Subprotocol("imcluster.v1.json")],
        ping_interval=None,
        close_timeout=1,
    ) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        backend.base = f"{host}:{port}"
        yield backend


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with run_backend() as running:
        yield running


@pytest.fixture
async def page(browser: Browser, backend: Backend) -> AsyncIterator[Page]:
    """A page with `start(options)`, `told` (the events) and no error of its own when the test is over."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    await _load(page, backend)
    yield page
    await page.close()
    assert faults == []


async def _load(page: Page, backend: Backend) -> None:
    await page.goto(f"http://{backend.base}/")
    await page.wait_for_function("window.start !== undefined")


async def _start(page: Page, options: str = "{}") -> None:
    await page.evaluate(f"() => {{ window.client = start({options}); }}")


async def _told(page: Page, kind: str) -> list[Any]:
    return [event for name, event in await page.evaluate("told") if name == kind]


async def _state(page: Page, state: str) -> None:
    await page.wait_for_function("(state) => client.state === state", arg=state)


async def _until_told(page: Page, kind: str, count: int) -> list[Any]:
    script = "([kind, count]) => told.filter(([name]) => name === kind).length >= count"
    await page.wait_for_function(script, arg=[kind, count])
    return await _told(page, kind)


async def test_messages_of_all_kinds_arrive_once_and_are_acked(page, backend):
    await _start(page)
    peer = await backend.peer()
    assert peer.connection.subprotocol == "imcluster.v1.json"
    assert peer.since is None
    await peer.hello("0")
    await peer.msg("m1", "1", {"text": "Grüße \N{GRINNING FACE}"}, chan="room")
    await peer.msg("m2", "2", "AP+A", b64=True)
    await peer.msg("m2", "2", "AP+A", b64=True)
    await peer.send("receipt", id="m0", to="bob", status="delivered", pos="3")
    await peer.msg("m3", "4", "text")
    while (await peer.recv()) != {"t": "ack", "pos": "4"}:
        pass
    assert await _told(page, "message") == [
        {"id": "m1", "from": "bob", "chan": "room", "data": {"text": "Grüße \N{GRINNING FACE}"}},
        {"id": "m2", "from": "bob", "chan": None, "data": {"bytes": [0, 255, 128]}},
        {"id": "m3", "from": "bob", "chan": None, "data": "text"},
    ]
    assert await _told(page, "receipt") == [{"id": "m0", "to": "bob", "status": "delivered", "pos": "3"}]
    await page.evaluate("client.close()")
    assert await peer.closed() == 1000


async def test_it_resumes_after_a_close_a_vanished_server_and_refused_handshakes(page, backend):
    await _start(page)
    peer = await backend.peer()
    await peer.hello("0")
    await peer.msg("m1", "1-0")
    await peer.connection.close(1012)
    second = await backend.peer()
    assert second.since == "1-0"
    await second.hello("1-0", recovered=True)
    await second.msg("m1", "1-0")
    await second.msg("m2", "2-0")
    await _until_told(page, "message", 2)
    backend.refusals += [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.UNAUTHORIZED]
    second.connection.transport.abort()
    third = await backend.peer()
    assert third.since == "2-0"
    assert third.token == "t5"
    await third.hello("5-0", recovered=False)
    assert await _until_told(page, "gap", 1) == [{"reason": "missed"}]
    assert [event["id"] for event in await _told(page, "message")] == ["m1", "m2"]
    assert [request["lastCode"] for request in backend.requests] == [None, 1012, 1006, 1006, 1006]
    assert [request["avoid"] for request in backend.requests] == [None, *[f"ws://{backend.base}/ws"] * 4]
    assert await _told(page, "error") == []


async def test_it_moves_to_another_server_without_missing_or_repeating_anything(page, backend):
    await _start(page, "{ backoff: { stableMs: 0 } }")
    old = await backend.peer()
    await old.hello("0")
    await old.msg("m1", "1")
    async with run_backend() as other:
        await old.send("move", url=other.url(), pos="1")
        new = await other.peer()
        assert new.since == "1"
        await old.msg("m2", "2")
        await _until_told(page, "message", 2)
        await new.hello("1", recovered=True, server="im-1")
        await new.msg("m2", "2")
        await new.msg("m3", "3")
        assert await old.closed() == 1000
        events = await _until_told(page, "message", 3)
        assert [event["id"] for event in events] == ["m1", "m2", "m3"]
        assert await page.evaluate("[client.state, client.server]") == ["open", "im-1"]
        assert len(backend.requests) == 1
        await page.evaluate("client.close()")


async def test_a_disconnect_by_the_business_is_final(page, backend):
    await _start(page)
    peer = await backend.peer()
    await peer.hello("0")
    await peer.connection.close(4500, "banned")
    await _state(page, "closed")
    last = (await _told(page, "state"))[-1]
    assert (last["state"], last["code"], last["reason"]) == ("closed", 4500, "banned")
    assert len(backend.requests) == 1


async def test_a_reload_resumes_where_the_page_stopped(page, backend):
    await _start(page, "{ storage: sessionPosition() }")
    first = await backend.peer()
    assert first.since is None
    await first.hello("0")
    await first.msg("m1", "7-3")
    await _until_told(page, "message", 1)
    await page.reload()
    await page.wait_for_function("window.start !== undefined")
    await _start(page, "{ storage: sessionPosition() }")
    second = await backend.peer()
    assert second.since == "7-3"
    await second.hello("7-3", recovered=True)
    await second.msg("m2", "7-4")
    assert [event["id"] for event in await _until_told(page, "message", 1)] == ["m2"]
    assert await _told(page, "gap") == []


async def test_the_networks_return_cuts_a_long_wait_short_and_blames_no_server(page, backend):
    await _start(page, "{ backoff: { baseMs: 3600000, maxMs: 3600000, random: () => told.random ?? 0.9 } }")
    peer = await backend.peer()
    await peer.hello("0")
    await _state(page, "open")
    await page.context.set_offline(True)
    peer.connection.transport.abort()
    await _state(page, "waiting")
    await page.evaluate("() => { told.random = 0; }")
    await page.context.set_offline(False)
    again = await backend.peer()
    await again.hello("0", recovered=True)
    await _state(page, "open")
    assert [request["avoid"] for request in backend.requests] == [None, None]


async def test_a_server_that_answers_no_ping_is_left(page, backend):
    await _start(page, "{ pongTimeoutMs: 200 }")
    silent = await backend.peer()
    await silent.hello("0", ping=1)
    assert await silent.recv() == {"t": "ping"}
    assert await silent.closed() == 4000
    second = await backend.peer()
    assert second.since == "0"
    await second.hello("0", recovered=True, ping=1)
    assert await second.recv() == {"t": "ping"}
    await second.send("pong", pos="9")
    await page.wait_for_function("client.lag !== null && client.position === '9'")
