"""What clients may say in a text frame: in the envelope mode acks and pings, one JSON object each.
Pure: the frame's payload in, what is meant out."""

from __future__ import annotations

import json
from typing import Final, Literal

from imhelper.core.position import Position, parse_position

__all__ = ["PING", "Misspoken", "understand"]

PING: Final = "ping"


class Misspoken(Exception):
    """The connection is to be closed with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def understand(payload: bytes, envelope: bool) -> Position | Literal["ping"] | None:
    """The position of an ack, or PING; None in plain mode, where all that is text is ignored. Raises Misspoken."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise Misspoken(1007, "text must be UTF-8") from None
    if not envelope:
        return None
    try:
        command = json.loads(text)
    except (ValueError, RecursionError):
        command = None
    kind = command.get("t") if isinstance(command, dict) else None
    if kind == "ping":
        return PING
    if kind != "ack" or not isinstance(command.get("pos"), str):
        raise Misspoken(4501, "only ack and ping may be sent")
    pos = parse_position(command["pos"])
    if pos is None:
        raise Misspoken(4501, "the position of an ack is not readable")
    return pos
