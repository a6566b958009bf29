"""`python -m imserver` and the console script: settings from the environment, then serve until told to stop.
Exit codes: 0 after a drain, 1 a failure, 2 a bad setting, 75 fenced (start it again)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from imhelper.errors import ImError, SettingError

from . import __version__
from .app import EXIT_FAILED, Server
from .logs import setup_logging
from .settings import load_settings, unknown_settings

__all__ = ["main"]

EXIT_SETTING = 2


def main() -> None:
    """Run the server. Never returns."""
    _parse_arguments()
    try:
        settings = load_settings(os.environ)
        setup_logging(settings.log_level, settings.log_format)
        log = logging.getLogger("imserver")
        for variable in unknown_settings(os.environ):
            log.warning("%s is not a setting of imserver", variable)
        server = Server(settings)
    except SettingError as error:
        print(f"imserver: {error}", file=sys.stderr)
        sys.exit(EXIT_SETTING)
    try:
        sys.exit(_run(server))
    except OSError as error:
        print(f"imserver: can't listen: {error}", file=sys.stderr)
    except ImError as error:
        print(f"imserver: {error}", file=sys.stderr)
    sys.exit(EXIT_FAILED)


def _parse_arguments() -> None:
    # Or `imserver --help` would start a server.
    text = "The WebSocket server of an ImCluster. All its settings are environment variables, see docs/settings.md."
    parser = argparse.ArgumentParser(prog="imserver", description=text)
    parser.add_argument("--version", action="version", version=f"imserver {__version__}")
    parser.parse_args()


def _run(server: Server) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(server.run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(server.run())


if __name__ == "__main__":
    main()
