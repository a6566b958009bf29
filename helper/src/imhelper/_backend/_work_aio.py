"""Small pieces of concurrency in asyncio form: a background worker, one flight for many callers, calling back.
The blocking twin has the same names, so that code generated for both builds on them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any

__all__ = ["Background", "Finished", "Guard", "SingleFlight", "finished", "invoke", "pause"]

logger = logging.getLogger("imhelper")


class Finished:
    """The outcome of something that is done already: may be awaited, or not."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def finished() -> Finished:
    """Something that is done already."""
    return Finished()


async def pause(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


async def invoke(function: Callable[..., Any], *args: Any) -> None:
    """Call a sync or async callable, and wait for it."""
    result = function(*args)
    if inspect.isawaitable(result):
        await result


async def _finish(result: Awaitable[None]) -> None:
    await result


class SingleFlight:
    """Callers that want the same work at the same time share one run of it (in each event loop)."""

    def __init__(self, patience: float) -> None:
        """`patience` is there for the sake of one signature in both forms: the work keeps its own time here."""
        self._running: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, or wait for the run that is under way; its error reaches every caller."""
        loop = asyncio.get_running_loop()
        task = self._running.get(loop)
        if task is None or task.done():
            # Changed in place, one at a time: loops of other threads may be adding theirs.
            for closed in [at for at in list(self._running) if at.is_closed()]:
                self._running.pop(closed, None)
            task = self._running[loop] = loop.create_task(_finish(work()))
            # Its error belongs to who waits; when all of them were cancelled, nobody does.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)


class Guard:
    """Keeps workers apart for a moment; in one event loop, code without `await` needs nothing for that."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class Background:
    """Work that goes on until it is asked to stop: here a task, in the blocking form a thread."""

    def __init__(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._body = body
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether the work was asked to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def _run(self) -> None:
        try:
            await self._body()
        except Exception:
            logger.exception("%s ended with an error", self._name)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def stop(self) -> None:
        """Ask the work to stop and wait until it has; from inside the work itself only ask."""
        task = self._task
        if task is not None and (loop := task.get_loop()) is not asyncio.get_running_loop():
            # It belongs to another event loop: that one ends it, and nobody can wait for it from here.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._stop.set)
            return
        self._stop.set()
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])
