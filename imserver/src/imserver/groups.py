"""Work that goes on in every group of keys at once, as long as the group's part of a Redis Cluster answers.
One that is away holds up its own clients only; who waited for one after the other would let all of them wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from imhelper.errors import RedisUnavailableError

__all__ = ["each"]


async def each(groups: Iterable[int], work: Callable[[int], Awaitable[None]]) -> None:
    """Do it for each group, all at once.

    Raises the worst error when all are done: any other before RedisUnavailableError.
    """
    done = await asyncio.gather(*map(work, groups), return_exceptions=True)
    errors = [error for error in done if isinstance(error, BaseException)]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, RedisUnavailableError))
