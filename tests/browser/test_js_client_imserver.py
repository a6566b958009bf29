# The browser client in Chromium on real imservers that drain, restart and are killed while messages are sent.
# What is promised is counted: every message once and in order, every receipt once, and no gap.

import asyncio
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.async_api import Browser, Page

from imhelper import ImHelper
from tests.conftest import SpawnImservers
from tests.support.imserver import ImServer
from tests.support.redis_server import RedisServer

SOURCES = Path(__file__).resolve().parents[2] / "clients" / "js" / "src"
PATIENCE_SECONDS = 30
MESSAGES = 150
PAUSE_SECONDS = 0.01

PAGE = """<!doctype html><title>imcluster-client</title><script type="module">
import { ImClient } from "./src/index.js";
window.start = (name) => {
  const told = { message: [], receipt: [], gap: [], open: [], error: [] };
  const client = new ImClient({ getUrl: ({ avoid }) => imUrl(name, avoid) });
  for (const type of Object.keys(told)) {
    client.on(type, (event) => { told[type].push(type === "error" ? String(event) : event); });
  }
  client.connect();
  window[name] = { client, told };
};
</script>"""


@pytest.fixture
def redis_flavour() -> str:
    """The page never sees Redis, so one flavour says it all."""
    return "valkey"


@pytest.fixture
def servers(redis_server: RedisServer, spawn_imservers: SpawnImservers) -> list[ImServer]:
    return spawn_imservers(3, redis_server.url, IM_LEASE_SECONDS=2, IM_DRAIN_TIMEOUT_SECONDS=10)


@pytest.fixture
async def helper(redis_server: RedisServer) -> AsyncIterator[ImHelper]:
    async with ImHelper(redis_server.url) as helper:
        yield helper


class _App(BaseHTTPRequestHandler):
    """Serves the page and the client's modules, from the loopback: Chromium keeps pages from elsewhere off it."""

    def do_GET(self) -> None:
        source = SOURCES / Path(self.path).name
        body, kind = (source.read_bytes(), "text/javascript") if source.is_file() else (PAGE.encode(), "text/html")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def app() -> Iterator[str]:
    """The URL of the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _App) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(PATIENCE_SECONDS)


@pytest.fixture
async def page(browser: Browser, helper: ImHelper, app: str) -> AsyncIterator[Page]:
    """A page with `start(name)`, after which `window[name]` has the client and all it told."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1000)

    async def im_url(name: str, avoid: str | None) -> str:
        return await helper.prev_connect_server(name, avoid=avoid)

    await page.expose_function("imUrl", im_url)
    await page.goto(app)
    await page.wait_for_function("window.start !== undefined")
    yield page
    await page.close()


async def _start(page: Page, name: str) -> None:
    await page.evaluate("(name) => start(name)", name)
    await page.wait_for_function("(name) => window[name].client.state === 'open'", arg=name)


async def _server_of(page: Page, name: str, servers: list[ImServer]) -> ImServer:
    holder = await page.evaluate("(name) => window[name].client.server", name)
    return next(server for server in servers if server.name == holder)


async def test_nothing_is_lost_or_repeated_while_servers_drain_restart_and_are_killed(page, helper, servers):
    await _start(page, "ann")
    sent: list[str] = []
    sending = True

    async def send() -> None:
        while sending or len(sent) < MESSAGES:
            sent.append(await helper.send_message("bob", "ann", {"n": len(sent)}))
            await asyncio.sleep(PAUSE_SECONDS)

    sender = asyncio.create_task(send())
    try:
        for end in (ImServer.terminate, ImServer.kill, ImServer.terminate):
            server = await _server_of(page, "ann", servers)
            end(server)
            script = "(name) => ann.client.state === 'open' && ann.client.server !== name"
            await page.wait_for_function(script, arg=server.name)
            await asyncio.to_thread(server.wait)
            await asyncio.to_thread(server.start)
    finally:
        sending = False
        await asyncio.wait_for(sender, PATIENCE_SECONDS)
    await page.wait_for_function("(last) => ann.told.message.at(-1)?.id === last", arg=sent[-1])
    assert await page.evaluate("ann.told.message.map(({ id }) => id)") == sent
    assert await page.evaluate("ann.told.message.map(({ data }) => data.n)") == list(range(len(sent)))
    assert await page.evaluate("[ann.told.gap, ann.told.error]") == [[], []]
    opens = await page.evaluate("ann.told.open.map(({ recovered, moved }) => [recovered, moved])")
    assert opens[0] == [False, False]
    assert all(recovered for recovered, _ in opens[1:])
    assert [True, True] in opens


async def test_an_ack_makes_a_receipt_and_a_client_that_is_away_makes_another(page, helper, servers):
    await _start(page, "ann")
    await _start(page, "bob")
    sent = await helper.send_message("ann", ["bob", "eve"], "hi", receipt=True)
    await page.wait_for_function("ann.told.receipt.length === 2")
    receipts = await page.evaluate("ann.told.receipt.map(({ id, to, status }) => [id, to, status])")
    assert sorted(receipts) == [[sent, "bob", "delivered"], [sent, "eve", "offline"]]


async def test_a_disconnect_by_the_business_ends_the_client(page, helper, servers):
    await _start(page, "ann")
    assert await helper.disconnect("ann", "banned") == 1
    await page.wait_for_function("ann.client.state === 'closed'")
    assert await helper.has_online("ann") is False
    assert await page.evaluate("ann.told.open.length") == 1
