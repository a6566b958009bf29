"""Several load generators used as one: more sockets than one process may hold.

Each has source addresses of its own, so that they don't share ports.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.natives import DELIVERY_SECONDS, SOURCES, Delivered, Loadgen

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
        self._sockets = [0] * count

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
                self._sockets[index] += len(mine)

    @property
    def sockets(self) -> list[int]:
        """How many each generator was told to open."""
        return list(self._sockets)

    async def reset(self) -> None:
        """As of Loadgen."""
        for generator in self._generators:
            await generator.reset()

    async def received(self, messages: Sequence[int], timeout: float = DELIVERY_SECONDS) -> list[Delivered]:
        """As of Loadgen: what each got since the last reset, when `messages` of them were due to each."""
        return [await g.received(due, timeout) for g, due in zip(self._generators, messages, strict=True)]

    async def stats(self) -> list[dict[str, Any]]:
        """All counters of each."""
        return [await generator.stats() for generator in self._generators]

    async def close(self) -> None:
        """As of Loadgen."""
        for generator in self._generators:
            await generator.close()
