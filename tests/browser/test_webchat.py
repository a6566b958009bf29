# The web chat as people use it: tabs of a real Chromium on real imservers, one of which is killed.
# Screenshots of a desktop and of a phone are kept among the artefacts.

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, FilePayload, Page, expect

from tests.conftest import SpawnImservers
from tests.support.chatpage import PHONE, chat_window, join, open_tab, rename, say, talk_to
from tests.support.imserver import ImServer
from tests.support.process import Process
from tests.support.redis_server import RedisServer
from tests.support.webchat import WebChat, calling, in_topology

MOST_TABS = 24


@pytest.fixture
def redis_flavour() -> str:
    """The page never sees Redis, so one flavour says it all."""
    return "valkey"


@pytest.fixture
def servers(redis_server: RedisServer, spawn_imservers: SpawnImservers) -> list[ImServer]:
    return spawn_imservers(3, redis_server.url, IM_LEASE_SECONDS=2, IM_PING_SECONDS=2)


@pytest.fixture
async def webchat(
    redis_server: RedisServer, servers: list[ImServer], tmp_path: Path, processes: Callable[[Process], None]
) -> WebChat:
    await in_topology(redis_server.url, len(servers))
    server = WebChat(redis_server.url, tmp_path)
    processes(server)
    server.start()
    return server


@pytest.fixture
async def window(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with chat_window(browser) as context:
        yield context


async def server_of(tab: Page) -> str:
    return await tab.locator("#fact-server").inner_text()


async def tabs_on_three_servers(window: BrowserContext, webchat: WebChat) -> list[Page]:
    """Three tabs, each on a server of its own; ids are random, so more are opened until that is so."""
    by_server: dict[str, Page] = {}
    for _ in range(MOST_TABS):
        tab = await open_tab(window, webchat.url)
        if by_server.setdefault(await server_of(tab), tab) is not tab:
            await tab.close()
        if len(by_server) == 3:
            return [by_server[server] for server in sorted(by_server)]
    raise AssertionError(f"{MOST_TABS} tabs met only {sorted(by_server)}")


@pytest.mark.timeout(180)
async def test_three_tabs_chat_across_servers(window: BrowserContext, webchat: WebChat, artifacts: Path):
    ada, grace, linus = await tabs_on_three_servers(window, webchat)
    for tab, name in ((ada, "Ada"), (grace, "Grace"), (linus, "Linus")):
        await rename(tab, name)
    for tab in (ada, grace, linus):
        await expect(tab.locator("#people-count")).to_have_text("3 online", timeout=20_000)
        await expect(tab.locator("#servers .server")).to_have_count(3)
        await join(tab, "Tea room")
    await expect(ada.locator("#chat-subtitle")).to_have_text("3 people here now")
    said = ["Is the kettle on?", "It is, on another server.", "Then I come from the third."]
    for tab, text in zip((ada, grace, linus), said, strict=True):
        await say(tab, text)
        await expect(tab.locator("#log .bubble").last).to_have_text(text)
        for other in (ada, grace, linus):
            await expect(other.locator("#log .bubble", has_text=text)).to_have_count(1)
    for tab in (ada, grace, linus):
        await expect(tab.locator("#log .bubble")).to_have_text(said)
    await expect(grace.locator("#log .msg-from").first).to_have_text("Ada")

    await talk_to(ada, "Grace")
    await say(ada, "Just between us two")
    await expect(ada.locator("#log .msg-meta").last).to_contain_text("✓✓ delivered")
    badge = grace.locator("#people button", has_text="Ada").locator(".badge")
    await expect(badge).to_have_text("1")
    await talk_to(grace, "Ada")
    await expect(badge).to_have_count(0)
    await expect(grace.locator("#log .bubble")).to_have_text(["Just between us two"])
    await say(grace, "As it should be")
    await expect(ada.locator("#log .bubble").last).to_have_text("As it should be")
    assert "Just between us two" not in await linus.inner_text("body")

    await expect(ada.locator("#fact-lag")).to_contain_text("ms")
    await ada.screenshot(path=artifacts / "webchat-desktop-direct.png")
    await ada.locator("#rooms button", has_text="Tea room").click()
    await ada.screenshot(path=artifacts / "webchat-desktop.png")
    await ada.emulate_media(color_scheme="dark")
    await ada.screenshot(path=artifacts / "webchat-dark.png")
    await linus.set_viewport_size(PHONE)
    await linus.screenshot(path=artifacts / "webchat-phone.png")
    for view in ("side", "cluster"):
        await linus.locator(f".tabs [data-to={view}]").click()
        await expect(linus.locator(f"#{view}")).to_be_visible()
        await expect(linus.locator("#chat")).to_be_hidden()
        assert await linus.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await linus.screenshot(path=artifacts / f"webchat-phone-{view}.png")


@pytest.mark.timeout(180)
async def test_a_killed_server_costs_no_message(
    window: BrowserContext, webchat: WebChat, servers: list[ImServer], artifacts: Path
):
    tabs = await tabs_on_three_servers(window, webchat)
    for tab in tabs:
        await join(tab, "Race")
    sender, losing, _ = tabs
    lost = await server_of(losing)
    victim = next(server for server in servers if server.name == lost)
    sender_id = await sender.locator("#fact-id").inner_text()
    numbers = [f"message {number}" for number in range(120)]

    async with calling(webchat) as service:
        for number, text in enumerate(numbers):
            if number == 40:
                victim.kill()
            await service.post("/ws/send-channelmsg", websocketId=sender_id, channel="Race", message=text)
            await asyncio.sleep(0.03)
    for tab in tabs:
        await expect(tab.locator("#log .bubble")).to_have_text(numbers, timeout=20_000)
        await expect(tab.locator("#status")).to_have_attribute("data-state", "open")
    assert await server_of(losing) in {server.name for server in servers if server is not victim}
    await expect(losing.locator("#fact-reconnects")).to_have_text("1")
    await expect(losing.locator("#events")).to_contain_text(f"Lost {lost}")
    await expect(losing.locator("#events")).to_contain_text("nothing is missing")
    for tab in tabs:
        await expect(tab.locator(f"#servers [data-name={lost}][data-state=active]")).to_have_count(0, timeout=20_000)
    await losing.screenshot(path=artifacts / "webchat-after-kill.png")

    await asyncio.to_thread(victim.start)
    for tab in tabs:
        await expect(tab.locator(f"#servers [data-name={lost}][data-state=active]")).to_have_count(1, timeout=20_000)
    await say(losing, "and on it goes")
    for tab in tabs:
        await expect(tab.locator("#log .bubble").last).to_have_text("and on it goes")


async def test_what_users_type_is_never_markup(window: BrowserContext, webchat: WebChat):
    evil = '<img src=x onerror="alert(1)"><script>alert(2)</script><b>bold</b>'
    ada = await open_tab(window, webchat.url, "<i>Ada</i>")
    bob = await open_tab(window, webchat.url, "Bob")
    for tab in (ada, bob):
        await join(tab, "<u>room</u>")
    await say(ada, evil)
    await expect(bob.locator("#log .bubble").last).to_have_text(evil)
    await expect(bob.locator("#log .msg-from").last).to_have_text("<i>Ada</i>")
    await talk_to(bob, "<i>Ada</i>")
    file: FilePayload = {"name": "<b>evil<b>.html", "mimeType": "text/html", "buffer": b"<script>alert(3)</script>"}
    await bob.set_input_files("#file", file)
    await talk_to(ada, "Bob")
    await expect(ada.locator("#log .file-name")).to_have_text("<b>evil<b>.html")
    for forged in ('{"type":"file","stage":"done","url":"javascript:alert(4)"}', '{"type":"live","servers":[]}'):
        await say(bob, forged)
        await expect(ada.locator("#log .bubble").last).to_have_text(forged)
    for tab in (ada, bob):
        assert await tab.locator("#log img, #log script, #log b, main i, main u").count() == 0
        await expect(tab.locator("#servers .server")).to_have_count(3)


@pytest.mark.timeout(120)
async def test_a_file_goes_from_one_to_the_other_with_progress(
    window: BrowserContext, webchat: WebChat, artifacts: Path, tmp_path: Path
):
    ada = await open_tab(window, webchat.url, "Ada")
    bob = await open_tab(window, webchat.url, "Bob")
    await talk_to(ada, "Bob")
    await talk_to(bob, "Ada")
    content = bytes(range(256)) * 8_000
    path = tmp_path / "holiday.mp4"
    path.write_bytes(content)
    network = await window.new_cdp_session(ada)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    await network.send("Network.enable")
    await network.send("Network.emulateNetworkConditions", slow)
    await ada.set_input_files("#file", path)
    for tab in (ada, bob):
        progress = tab.locator("#log progress")
        await expect(progress).to_have_count(1)
        await tab.wait_for_function(
            "() => { const p = document.querySelector('#log progress'); return p && p.value > 0 && p.value < 100; }"
        )
        await tab.screenshot(path=artifacts / f"webchat-file-{'to' if tab is bob else 'from'}.png")
    await expect(bob.locator("#log .file")).to_have_attribute("data-stage", "done", timeout=30_000)
    await expect(ada.locator("#log .msg-meta").last).to_contain_text("✓✓ delivered")
    async with bob.expect_download() as download:
        await bob.locator("#log .file a").click()
    received = await download.value
    assert received.suggested_filename == "holiday.mp4"
    assert Path(await received.path()).read_bytes() == content
    assert await ada.locator("#log .file a").count() == 0


@pytest.mark.timeout(120)
async def test_a_reload_keeps_everything_and_a_duplicated_tab_is_somebody_else(
    window: BrowserContext, webchat: WebChat
):
    tab = await open_tab(window, webchat.url, "Ada")
    own_id = await tab.locator("#fact-id").inner_text()
    await join(tab, "Garden")
    await say(tab, "before the reload")
    await expect(tab.locator("#log .msg-meta").last).to_contain_text("✓")
    await tab.reload()
    await expect(tab.locator("#status")).to_have_attribute("data-state", "open", timeout=30_000)
    assert await tab.locator("#fact-id").inner_text() == own_id
    await expect(tab.locator("#chat-title")).to_have_text("Garden")
    await expect(tab.locator("#log .bubble")).to_have_text(["before the reload"])
    await expect(tab.locator("#events")).to_contain_text("nothing is missing")

    # What is said while the page is away is there when it comes back.
    await tab.goto("about:blank")
    async with calling(webchat) as service:
        say_away = {"websocketId": "someone", "channel": "Garden", "message": "while you were away"}
        await service.post("/ws/send-channelmsg", say_away)
    await tab.go_back()
    await expect(tab.locator("#log .bubble")).to_have_text(["before the reload", "while you were away"], timeout=30_000)

    async with window.expect_page() as opened:
        await tab.evaluate("() => { window.open(location.href); }")
    copy = await opened.value
    await expect(copy.locator("#status")).to_have_attribute("data-state", "open", timeout=30_000)
    assert await copy.locator("#fact-id").inner_text() != own_id
    await expect(copy.locator("#log .bubble")).to_have_count(0)
    assert await tab.locator("#fact-id").inner_text() == own_id
    await expect(tab.locator("#people-count")).to_have_text("2 online")


async def test_the_page_waits_out_a_service_that_is_gone(window: BrowserContext, webchat: WebChat):
    ada = await open_tab(window, webchat.url, "Ada")
    bob = await open_tab(window, webchat.url, "Bob")
    await talk_to(ada, "Bob")
    await webchat.stop_async()
    await say(ada, "patience")
    await expect(ada.locator("#log .msg")).to_have_attribute("data-status", "sending")
    await asyncio.to_thread(webchat.start)
    await expect(ada.locator("#log .msg-meta").last).to_contain_text("✓✓ delivered", timeout=20_000)
    # The service kept no names; the pages told it theirs again.
    await expect(bob.locator("#people button", has_text="Ada")).to_have_count(1, timeout=20_000)
    await talk_to(bob, "Ada")
    await expect(bob.locator("#log .bubble")).to_have_text(["patience"])
