# The web chat's page in the hands of a test: windows, tabs, and what people do in them.
# It needs Playwright, so only tests in a browser import it.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright, expect

from tests.support.browser import CHROMIUM_OPTIONS, chromium_path

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@asynccontextmanager
async def headless_chromium() -> AsyncIterator[Browser]:
    """A Chromium for the length of a block; skips the test where the machine has none."""
    path = chromium_path()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield chromium
        await chromium.close()


@asynccontextmanager
async def chat_window(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser window whose tabs may not show a dialog nor break a rule of the page's security policy."""
    context = await browser.new_context(viewport=DESKTOP, color_scheme="light", locale="en-GB")
    wrong: list[str] = []
    said: list[str] = []
    context.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    context.on("weberror", lambda error: wrong.append(f"error: {error.error}"))
    context.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    context.on("console", lambda line: said.append(f"console: {line.text}"))
    context.on("requestfailed", lambda request: said.append(f"failed: {request.url} {request.failure}"))
    yield context
    await context.close()
    # pytest shows this beside a test that failed.
    print("\n".join(said))
    assert wrong == []


async def open_tab(window: BrowserContext, url: str, name: str = "") -> Page:
    """A tab that is connected and, if it has a name, known by it."""
    tab = await window.new_page()
    await tab.goto(url)
    await expect(tab.locator("#status")).to_have_attribute("data-state", "open", timeout=30_000)
    await expect(tab.locator("#chat-subtitle")).to_contain_text("here now")
    if name:
        await rename(tab, name)
    return tab


async def rename(tab: Page, name: str) -> None:
    await tab.fill("#name", name)
    await tab.press("#name", "Enter")


async def say(tab: Page, text: str) -> None:
    await tab.fill("#text", text)
    await tab.press("#text", "Enter")


async def join(tab: Page, room: str) -> None:
    await tab.fill("#room", room)
    await tab.press("#room", "Enter")
    await expect(tab.locator("#chat-title")).to_have_text(room)


async def talk_to(tab: Page, name: str) -> None:
    await tab.locator("#people button", has_text=name).click()
    await expect(tab.locator("#chat-title")).to_have_text(name)
