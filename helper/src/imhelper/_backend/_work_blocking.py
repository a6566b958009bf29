"""Small pieces of concurrency in blocking form: a background worker, one flight for many callers, calling back.
The asyncio twin has the same names, so that code generated for both builds on them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias

from ..errors import RedisUnavailableError

__all__ = ["Background", "Finished", "Guard", "SingleFlight", "finished", "invoke", "pause"]

logger = logging.getLogger("imhelper")


Finished: TypeAlias = None


def finished() -> Finished:
    """Something that is done already: in blocking code that is nothing."""
    return None


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def invoke(function: Callable[..., Any], *args: Any) -> None:
    """Call a sync or async callable, and wait for it; an async one runs in an event loop of its own."""
    result = function(*args)
    if inspect.isawaitable(result):
        asyncio.run(_finish(result))


async def _finish(result: Awaitable[Any]) -> None:
    await result


class SingleFlight:
    """Callers that want the same work at the same time share one run of it."""

    def __init__(self, patience: float) -> None:
        """`patience`: how many seconds a caller waits for the run of another one."""
        self._patience = patience
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        # Last, so that no other thread of a forked child takes the parent's lock for its own.
        self._pid = os.getpid()

    def run(self, work: Callable[[], None]) -> None:
        """Run `work`, or wait for the run that is under way; its error reaches every caller.

        Raises RedisUnavailableError when that run takes longer than this caller may wait.
        """
        if self._pid != os.getpid():
            # Another thread of the parent may have held the lock at the fork, or its run was under way.
            self._reset()
        with self._lock:
            running = self._running
            if running is None:
                mine = self._running = Future()
        if running is None:
            self._lead(work, mine)
            return
        try:
            running.result(self._patience)
        except CancelledError:
            # Its thread was interrupted (by a signal, say), which says nothing about Redis.
            self.run(work)
        except TimeoutError as error:
            raise RedisUnavailableError(
                f"Redis did not answer within {self._patience:g} s what another thread had asked"
            ) from error

    def _lead(self, work: Callable[[], None], outcome: Future[None]) -> None:
        try:
            work()
        except BaseException as error:
            self._end(outcome)
            if isinstance(error, Exception):
                outcome.set_exception(error)
            else:
                outcome.cancel()
            raise
        self._end(outcome)
        outcome.set_result(None)

    def _end(self, outcome: Future[None]) -> None:
        """Whoever comes from now on begins a run of his own."""
        with self._lock:
            if self._running is outcome:
                self._running = None


class Guard:
    """Keeps workers apart for a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class Background:
    """Work that goes on until it is asked to stop: here a thread, in the asyncio form a task."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self._name = name
        self._body = body
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        """Whether the work was asked to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin. The thread is a daemon: it does not keep a process alive that ends without `stop`."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._body()
        except Exception:
            logger.exception("%s ended with an error", self._name)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        self._stop.wait(seconds)

    def stop(self) -> None:
        """Ask the work to stop and wait until it has; from inside the work itself only ask."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
