# Starts the web chat: `python -m examples.webchat` in a checkout, `python -m webchat` where the folder stands alone.
# Settings that can't work end the start with one line on stderr and status 2.
from __future__ import annotations

import logging
import os
import sys

import uvicorn

from .app import create_app
from .settings import Settings, SettingsError


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as exc:
        sys.stderr.write(f"webchat: {exc}\n")
        return 2
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
