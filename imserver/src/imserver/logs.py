"""Logging in text or JSON, one line an event, to standard error.
Secrets never reach it: nothing here or elsewhere logs a URL with a token or a Redis password."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["setup_logging"]


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def setup_logging(level: str, form: str) -> None:
    """Set up the root logger. `level` and `form` are as the settings allow them."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_Json())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # The libraries below log each connection at info; what matters of it is logged and counted here.
    logging.getLogger("websockets").setLevel(logging.WARNING)
