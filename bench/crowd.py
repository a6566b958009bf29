"""Several load generators used as one: more sockets than one process may hold.

Each has source addresses of its own, so that they don't share ports.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.errors import BenchError
from bench.natives import DELIVERY_SECONDS, SOURCES, Loadgen, told

FIRST_SOURCE = 11
# What a server and a load generator of a large crowd hold: the table is even to a slot, so a server gets a few more.
SOCKETS_EACH = 16_800


class Crowd:
    """`count` load generators; the items of a list go to them in turn.

    Args:
        folder: as of Loadgen.
        count: how many processes, at most ten.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._stack = AsyncExitStack()
        self._generators = [Loadgen(folder, f"crowd-{index}", FIRST_SOURCE + SOURCES * index) for index in range(count)]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for generator in self._generators:
                await stack.enter_async_context(generator)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def connect(
        self, names: Sequence[str], mint: Callable[[Sequence[str]], Awaitable[list[str]]], mode: str = "plain"
    ) -> None:
        """Opens a socket a name, one generator after the other, each with URLs that were minted just before."""
        count = len(self._generators)
        for index, generator in enumerate(self._generators):
            mine = names[index::count]
            if mine:
                await generator.connect(await mint(mine), mode)

    async def reset(self) -> None:
        """As of Loadgen."""
        for generator in self._generators:
            await generator.reset()

    async def received(self, messages: int, timeout: float = DELIVERY_SECONDS) -> list[dict[str, Any]]:
        """Waits until all together got that many messages since the last reset; returns the counters of each.

        Raises:
            BenchError: the count was not reached in time or was exceeded, a socket was closed or a pong was not sent.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            seen = await self.stats()
            arrived = sum(one["messages"] for one in seen)
            if arrived >= messages or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.2)
        if arrived != messages:
            raise BenchError(f"{messages} messages were due to the crowd; it got {arrived}")
        for one in seen:
            if one["closes"] or one["eofs"] or one["unsent_pongs"]:
                raise BenchError(f"sockets of the crowd were lost: {told(one)}")
        return seen

    async def stats(self) -> list[dict[str, Any]]:
        """All counters of each."""
        return [await generator.stats() for generator in self._generators]

    async def close(self) -> None:
        """As of Loadgen."""
        for generator in self._generators:
            await generator.close()
