"""Waiting for a condition that nothing announces, always for a limited time.
For starts, ends and, now and then, a handshake that another server asks about: no message's way polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]

STEP_SECONDS = 0.02


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every 20 ms, for at most `seconds`. Returns whether the condition came true."""
    for _ in range(max(1, int(seconds / STEP_SECONDS))):
        if condition():
            return True
        await asyncio.sleep(STEP_SECONDS)
    return condition()
