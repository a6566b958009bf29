# Chromium for the tests of this folder, driven by Playwright, and the folder for their screenshots.
# They stand apart from tests/conftest.py so that the other tests need no Playwright.

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.support.browser import artifacts_folder
from tests.support.chatpage import headless_chromium


@pytest.fixture
def artifacts() -> Path:
    """The folder for screenshots and the like that CI keeps."""
    return artifacts_folder()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium, driven by Playwright's asyncio form; skips where there is none."""
    async with headless_chromium() as chromium:
        yield chromium
