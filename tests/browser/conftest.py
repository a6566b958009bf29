# Chromium for the tests of this folder, driven by Playwright, and the folder for their screenshots.
# They stand apart from tests/conftest.py so that the other tests need no Playwright.

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from tests.support.browser import CHROMIUM_OPTIONS, artifacts_folder, chromium_path


@pytest.fixture
def artifacts() -> Path:
    """The folder for screenshots and the like that CI keeps."""
    return artifacts_folder()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium, driven by Playwright's asyncio form; skips where there is none."""
    path = chromium_path()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield chromium
        await chromium.close()
