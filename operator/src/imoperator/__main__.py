"""`python -m imoperator` runs the operator; `crd` prints the CustomResourceDefinition, `release` is for uninstalling.
Exit codes: 0 stopped in order, 1 a failure, 2 a bad setting."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from lightkube import AsyncClient

from imhelper.errors import SettingError

from .api import UNANSWERED
from .crd import chart_template, crd_yaml
from .logs import setup_logging
from .manager import Manager
from .names import FIELD_MANAGER
from .release import release
from .settings import Settings, load_settings

__all__ = ["main"]

EXIT_FAILED, EXIT_SETTING = 1, 2


def main() -> None:
    """Run a subcommand. Never returns."""
    parser = argparse.ArgumentParser(prog="imoperator", description="The Kubernetes operator of ImCluster.")
    parser.add_argument("command", nargs="?", default="run", choices=["run", "crd", "release"])
    parser.add_argument("--chart", action="store_true", help="with crd: as the chart's template")
    arguments = parser.parse_args()
    command: str = arguments.command
    if command == "crd":
        sys.stdout.write(chart_template() if arguments.chart else crd_yaml())
        sys.exit(0)
    try:
        settings = load_settings(os.environ)
    except SettingError as error:
        print(f"imoperator: {error}", file=sys.stderr)
        sys.exit(EXIT_SETTING)
    setup_logging(settings.log_level, settings.log_format)
    try:
        sys.exit(asyncio.run(_run(command, settings)))
    except UNANSWERED as error:
        logging.getLogger("imoperator").critical("%s failed: %s", command, error)
    sys.exit(EXIT_FAILED)


async def _run(command: str, settings: Settings) -> int:
    client = AsyncClient(field_manager=FIELD_MANAGER, namespace=settings.namespace)
    try:
        if command == "release":
            await release(settings, client)
            return 0
        return await Manager(settings, client).run()
    finally:
        await client.close()


if __name__ == "__main__":
    main()
