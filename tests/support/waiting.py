# Waiting for a condition with a limit, for blocking and for asyncio tests.
# The limit only decides how long a failure takes; no test asserts how fast something is.

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
_PAUSE = 0.02


def wait_until(condition: Callable[[], T], timeout: float = 10, what: str = "") -> T:
    """Call `condition` until it answers something true, and return that.

    Args:
        condition: called again and again; an exception of it ends the wait.
        timeout: seconds after which `AssertionError` is raised.
        what: for the error's text, what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}; last answer: {answer!r}")
        time.sleep(_PAUSE)


async def eventually(condition: Callable[[], Awaitable[Any] | Any], timeout: float = 10, what: str = "") -> Any:
    """As `wait_until`, for asyncio tests: `condition` may be a coroutine function, and the loop runs meanwhile."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await asyncio.wait_for(answer, max(deadline - time.monotonic(), _PAUSE) + 1)
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}; last answer: {answer!r}")
        await asyncio.sleep(_PAUSE)
