"""What a `Link` holds for one event loop: waiting calls, their deadlines, the routes and one lane per address.
Calls wait here while there is no way to Redis; `_recover` finds one and hands them to the lanes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError

from ..core.redis_url import Address, RedisConfig
from ..errors import RedisUnavailableError
from ._connect_aio import RawConnection, drop, exchange, open_connection
from ._discover_aio import discover
from ._lane import Lane, Pending
from .common import (
    SENTINEL_SECONDS,
    Arg,
    Call,
    ConnectionLost,
    Routes,
    Verdict,
    backoff,
    judge,
    may_pass,
    pack,
    redirect_of,
    refused,
    unanswered,
)

__all__ = ["Dedicated", "Engine"]

MAX_WAITING = 65536
MAX_REDIRECTS = 5


class Engine:
    """Calls, deadlines and connections of one loop. All methods run in that loop."""

    def __init__(self, config: RedisConfig, prefix: str, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.prefix = prefix
        self.timeout = timeout
        self.loop = loop
        self.connect_timeout = max(0.05, timeout / 2)
        self._clustered: bool | None = {"cluster": True, "sentinel": False, "single": None}[config.kind]
        self._routes: Routes | None = None
        self._told_by: Address | None = None
        self._lanes: dict[Address, Lane] = {}
        self._parked: deque[Pending] = deque()
        # In the order of their deadlines, and without those that are done: what was answered must be kept by nobody.
        self._waiting: dict[Pending, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._last_error: BaseException | None = None
        self._follower: asyncio.Task[None] | None = None
        self._asked = False
        self.closed = False

    @property
    def clustered(self) -> bool:
        """Whether this is a Redis Cluster, as far as is known."""
        return self._clustered is True

    # -- calls ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """Take a call on; the future gets the raw reply or an ImError."""
        future: asyncio.Future[Any] = self.loop.create_future()
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING and not self._make_room():
            future.set_exception(RedisUnavailableError(f"more than {MAX_WAITING} calls are waiting for Redis"))
            return future
        pending = Pending(call, pack(call.command(self.prefix)), future, self.loop.time() + self.timeout)
        waiting[pending] = None
        self._asked = True
        if self._timer is None:
            self._timer = self.loop.call_at(pending.deadline, self._expire)
        self.dispatch(pending)
        return future

    def _make_room(self) -> bool:
        """Let go of the oldest calls as far as their callers have given them up; whether there were any."""
        before = len(self._waiting)
        while self._waiting and (oldest := next(iter(self._waiting))).future.done():
            del self._waiting[oldest]
        return len(self._waiting) < before

    def dispatch(self, pending: Pending) -> None:
        """Send a call on its way, or park it until there is one."""
        address = self._routes.address(pending.call.group) if self._routes else None
        if address is None or self.closed:
            self._park((pending,))
        else:
            self._lane(address).put(pending)

    def _lane(self, address: Address) -> Lane:
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = Lane(self, address)
        if self._follower is None and self.config.kind == "sentinel":
            self._follower = self.loop.create_task(self._follow())
        return lane

    def _expire(self) -> None:
        """Fail what is past its deadline. Deadlines are in order, because all calls have the same timeout."""
        self._timer = None
        now = self.loop.time()
        due: list[Pending] = []
        for pending in self._waiting:
            if pending.deadline > now and not pending.future.done():
                self._timer = self.loop.call_at(pending.deadline, self._expire)
                break
            due.append(pending)
        for pending in due:
            self.fail(pending, unanswered(self.config, self.timeout, pending.error or self._last_error))

    # -- what a lane reports ----------------------------------------------------------------------------------------

    def succeeded(self, pending: Pending, reply: Any) -> None:
        """A server answered as it should."""
        self._failures = 0
        self._last_error = None
        self._waiting.pop(pending, None)
        if not pending.future.done():
            pending.future.set_result(reply)

    def fail(self, pending: Pending, error: BaseException) -> None:
        """End a call with an error that a caller may see, unless it has ended already."""
        self._waiting.pop(pending, None)
        if not pending.future.done():
            pending.future.set_exception(refused(error))

    def _failed(self, error: BaseException) -> None:
        """There is no way at the moment: remember why, and when to try again."""
        self._routes = None
        self._last_error = error
        self._failures += 1
        self._not_before = self.loop.time() + min(backoff(self._failures), self.timeout / 4)

    def answer_error(self, lane: Lane, pending: Pending, error: BaseException) -> None:
        """Decide what becomes of a call that got an error instead of a reply."""
        verdict = judge(error)
        if verdict is Verdict.LOAD:
            # Part of the way, and no reason why it ended nowhere.
            pending.load = True
            lane.put(pending)
            return
        pending.error = error
        if verdict is Verdict.WAIT:
            pending.tries += 1
            self.loop.call_later(backoff(pending.tries), self._again, pending)
        elif verdict is Verdict.MOVED:
            self._redirect(lane, pending, error)
        else:
            self.fail(pending, error)

    def _redirect(self, lane: Lane, pending: Pending, error: BaseException) -> None:
        self._clustered = True
        pending.tries += 1
        if pending.tries > MAX_REDIRECTS:
            self.loop.call_later(backoff(pending.tries - MAX_REDIRECTS), self._again, pending)
            return
        # The routes are read again by the next call that has none; this one knows its way already.
        self._routes = None
        self._lane(redirect_of(error, lane.address)).put(pending)

    def _again(self, pending: Pending) -> None:
        if not pending.future.done():
            self.dispatch(pending)

    def lane_ended(self, lane: Lane, left: Iterable[Pending], error: BaseException | None) -> None:
        """A connection is gone; what it still owed waits for another one."""
        if self._lanes.get(lane.address) is lane:
            del self._lanes[lane.address]
        waiting = [p for p in left if not p.future.done()]
        if error is not None and waiting:
            # An idle connection that the server closed is no failure: the next call just opens another.
            self._failed(error)
        if error is None or may_pass(error):
            self._park(waiting)
            return
        for pending in waiting:
            self.fail(pending, error)

    # -- finding a way ----------------------------------------------------------------------------------------------

    def _park(self, calls: Iterable[Pending]) -> None:
        self._parked.extend(p for p in calls if not p.future.done())
        if self.closed:
            self._fail_parked(RedisUnavailableError("the connection to Redis was closed"))
        elif self._parked and self._recovery is None:
            self._recovery = self.loop.create_task(self._recover())
            self._recovery.add_done_callback(self._recovered)

    def _recovered(self, task: asyncio.Task[None]) -> None:
        self._recovery = None
        if task.cancelled():
            self.abort()
        elif (error := task.exception()) is not None:
            self._fail_parked(error)
        else:
            self._park(())

    def _fail_parked(self, error: BaseException) -> None:
        parked, self._parked = self._parked, deque()
        for pending in parked:
            self.fail(pending, error)

    async def _recover(self) -> None:
        """Until no call is parked: find the routes, hand the calls to the lanes."""
        while any(not p.future.done() for p in self._parked):
            await asyncio.sleep(self._not_before - self.loop.time())
            # Those that timed out meanwhile would pile up for as long as Redis is away.
            self._parked = deque(p for p in self._parked if not p.future.done())
            try:
                self._routes = self._routes or await self._discover()
            except Exception as error:
                if not may_pass(error):
                    raise
                self._failed(error)
                continue
            waiting, self._parked = self._parked, deque()
            for pending in waiting:
                if self._routes.address(pending.call.group) is None:
                    self._parked.append(pending)
                else:
                    self.dispatch(pending)
            if self._parked:
                self._failed(ConnectionError("no node of the Redis Cluster serves this key at the moment"))
        self._parked.clear()

    async def _follow(self) -> None:
        """While calls are made, ask the Sentinels now and then, and leave a primary that was replaced."""
        while True:
            await asyncio.sleep(SENTINEL_SECONDS)
            routes, asked, self._asked = self._routes, self._asked, False
            if routes is None or not asked:
                continue
            try:
                found = await self._discover()
            except Exception:
                # The primary may be well all the same; if it is not, the calls themselves will tell.
                found = routes
            address = found.address(None)
            if self._routes is routes and address != routes.address(None):
                self._routes = found
                for lane in [lane for lane in self._lanes.values() if lane.address != address]:
                    lane.leave()

    async def _discover(self) -> Routes:
        known = [*([self._told_by] if self._told_by else []), *self._lanes]
        way = await discover(self.config, self.prefix, self._clustered, known, self.timeout)
        routes, self._clustered, self._told_by = way
        return routes

    # -- the rest ---------------------------------------------------------------------------------------------------

    async def dedicated(self, group: int | None, patience: float | None) -> Dedicated:
        """A connection of its own to the server of a group; a PING through a lane finds that server."""
        await self.submit(Call(group, ("PING",)))
        address = self._routes.address(group) if self._routes else None
        if address is None:
            raise unanswered(self.config, self.timeout, self._last_error)
        try:
            connection = await open_connection(self.config, address, self.connect_timeout)
        except ConnectionLost as error:
            raise unanswered(self.config, self.connect_timeout, error) from error
        except RedisError as error:
            raise refused(error) from error
        return Dedicated(connection, patience)

    def abort(self) -> None:
        """Fail all calls and cancel all tasks, without waiting for them."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        for task in (self._recovery, self._follower):
            if task is not None:
                task.cancel()
        for lane in list(self._lanes.values()):
            lane.task.cancel()
        self._fail_parked(RedisUnavailableError("the connection to Redis was closed"))

    async def close(self) -> None:
        """Fail all calls, close all connections."""
        tasks = [lane.task for lane in self._lanes.values()]
        tasks += [task for task in (self._recovery, self._follower) if task is not None]
        self.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


class Dedicated:
    """One connection that nobody else uses, for blocking reads. Not repeated: on an error open another one."""

    def __init__(self, connection: RawConnection, patience: float | None) -> None:
        self._connection = connection
        self._patience = patience

    async def call(self, *args: Arg, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - of one reply
        """Send a command and wait for its raw reply; see `exchange`."""
        return await self.exchange(pack(args), timeout=timeout)

    async def exchange(self, packed: bytes, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - of one reply
        """Send a command in its wire form and wait for its raw reply, at most `timeout` seconds.

        Raises RedisUnavailableError for a lost connection, a timeout and an error reply alike; only after an
        error reply is the connection still usable. A cancelled call closes the connection.
        """
        wait = self._patience if timeout is None else timeout
        try:
            return await exchange(self._connection, wait, packed)
        except ConnectionLost as error:
            await self.close()
            raise RedisUnavailableError(f"the connection to Redis was lost: {error}") from error
        except RedisError as error:
            raise refused(error) from error
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection. Safe to repeat."""
        await drop(self._connection)
