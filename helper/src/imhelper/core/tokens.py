"""One-time tokens: `<slot in hex>.<random>`. The slot tells any server which group of keys to ask.
The random part has 144 bits; the whole is a secret until used and is never logged."""

from __future__ import annotations

import re
import secrets

__all__ = ["make_token", "slot_of_token"]

_TOKEN = re.compile(r"([0-9a-f]{1,3})\.[A-Za-z0-9_-]{24}", re.ASCII)


def make_token(slot: int) -> str:
    """A fresh token for a client of this slot."""
    return f"{slot:x}.{secrets.token_urlsafe(18)}"


def slot_of_token(token: str, slots: int) -> int | None:
    """The slot that a token names, or None when the text can't be a token of this cluster."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    slot = int(found.group(1), 16)
    return slot if slot < slots else None
