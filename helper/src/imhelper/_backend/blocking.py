"""The blocking way to Redis: no thread of its own, a small pool of connections, safe across threads and forks.
Same methods and meaning as `aio.Link`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from ..core.redis_url import Address, RedisConfig
from ..core.scripts import Script
from ..core.slots import CLUSTER_GROUPS
from ..errors import RedisUnavailableError
from ._connect_blocking import RawConnection, ask, drop, open_connection
from ._discover_blocking import discover
from .common import (
    Arg,
    Call,
    ConnectionLost,
    Routes,
    Verdict,
    backoff,
    judge,
    may_pass,
    pack,
    parse_info,
    redirect_of,
    refused,
    unanswered,
)

__all__ = ["Dedicated", "Link"]

KEPT_IDLE = 16
BATCH = 512
MAX_ROUNDS = 5


class _Pending:
    """A call on its way: its packed form, its outcome, and what was learnt."""

    __slots__ = ("answered", "call", "error", "load", "outcome", "packed", "target")

    def __init__(self, call: Call, packed: bytes) -> None:
        self.call = call
        self.packed = packed
        self.answered = False
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.load = False
        self.target: Address | None = None

    def answer(self, outcome: Any) -> None:
        self.answered = True
        self.outcome = outcome


class Link:
    """A way to Redis for blocking code: connects at first use, survives forks, restarts and failovers.

    Every call is repeated until it gets an answer or `timeout` seconds have passed; so a call may be executed more
    than once, and everything that goes through a Link must be safe to repeat. All replies are raw (bytes, int, list
    or None). Any number of threads may use one Link; each call holds one connection while it lasts.
    """

    def __init__(self, config: RedisConfig, *, prefix: str, timeout: float = 5.0) -> None:
        self.config = config
        self.prefix = prefix
        self.timeout = timeout
        # A reply that stays away this long makes the call change to another connection.
        self._patience = max(0.05, timeout / 2)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: dict[Address, list[RawConnection]] = {}
        self._routes: Routes | None = None
        self._clustered: bool | None = {"cluster": True, "sentinel": False, "single": None}[self.config.kind]

    @property
    def groups(self) -> int:
        """16 on a Redis Cluster, else 1. Certain after the first answered call, or after `ready()`."""
        return CLUSTER_GROUPS if self._clustered else 1

    def ready(self) -> None:
        """Find out where the primary is and whether this is a Redis Cluster.

        Raises RedisUnavailableError when no server answers within the timeout.
        """
        self.command(None, "PING")

    def eval(self, script: Script, group: int | None, *args: Arg) -> Any:
        """Run a script on a group's tag (None: the global tag) and return its raw reply.

        Raises RedisUnavailableError when Redis does not answer within the timeout, or refuses.
        """
        return self._one(Call(group, args, script))

    def command(self, group: int | None, *args: Arg) -> Any:
        """Send one command to the server of a group; the caller builds full keys. Raises as `eval` does."""
        return self._one(Call(group, args))

    def gather(self, calls: Sequence[Call]) -> list[Any]:
        """Make several calls in one round trip to each server concerned.

        Returns their replies in order; an element is an exception instance when its call failed.
        """
        pending = [_Pending(call, pack(call.command(self.prefix))) for call in calls]
        self._run(pending)
        return [p.outcome for p in pending]

    def dedicated(self, group: int | None, *, timeout: float | None = None) -> Dedicated:
        """Open a connection of its own to the server of a group, for blocking reads.

        `timeout` is how long a reply may take, in seconds (None: for ever). Raises RedisUnavailableError.
        """
        self.command(group, "PING")
        routes = self._routes
        address = routes.address(group) if routes else None
        if address is None:
            raise unanswered(self.config, self.timeout, None)
        try:
            return Dedicated(open_connection(self.config, address, self._patience, reply_timeout=timeout))
        except ConnectionLost as error:
            raise unanswered(self.config, self._patience, error) from error
        except RedisError as error:
            raise refused(error) from error

    def eviction_policy(self) -> str | None:
        """Redis's `maxmemory_policy`, or None when it can't be learnt."""
        reply = self.gather([Call(None, ("INFO", "memory"))])[0]
        return parse_info(reply).get("maxmemory_policy") if isinstance(reply, bytes) else None

    def close(self) -> None:
        """Close all idle connections; one in use is closed when its call ends. A later call connects again."""
        if self._pid != os.getpid():
            self._reset()
            return
        with self._lock:
            idle, self._idle = self._idle, {}
            self._routes = None
        for connections in idle.values():
            for connection in connections:
                drop(connection)

    def __repr__(self) -> str:
        return f"<imhelper link to {self.config.describe()}>"

    # -- one call, or several ---------------------------------------------------------------------------------------

    def _one(self, call: Call) -> Any:
        pending = _Pending(call, pack(call.command(self.prefix)))
        self._run([pending])
        if isinstance(pending.outcome, BaseException):
            raise pending.outcome
        return pending.outcome

    def _run(self, calls: list[_Pending]) -> None:
        """Repeat what has no answer yet, until all have one or the time is up."""
        if self._pid != os.getpid():
            # A fork: the parent's sockets are let go without a word on them.
            self._reset()
        deadline = time.monotonic() + self.timeout
        rounds = failures = 0
        error: BaseException | None = None
        waiting = calls
        while waiting:
            if failures:
                pause = min(backoff(failures), self.timeout / 4)
                if time.monotonic() + pause >= deadline:
                    for pending in waiting:
                        pending.answer(unanswered(self.config, self.timeout, pending.error or error))
                    return
                time.sleep(pause)
            try:
                lost = self._attempt(waiting)
            except Exception as failure:
                self._routes = None
                lost = failure
                if not may_pass(failure):
                    for pending in waiting:
                        if not pending.answered:
                            pending.answer(refused(failure))
            rounds += 1
            if lost is not None or rounds > MAX_ROUNDS:
                failures += 1
                error = lost or error
            waiting = [p for p in waiting if not p.answered]

    def _attempt(self, calls: list[_Pending]) -> BaseException | None:
        """Try once. Returns why what is left must wait, or None when it may be repeated at once."""
        routes = self._find_routes()
        by_address: dict[Address, list[_Pending]] = {}
        error: BaseException | None = None
        for pending in calls:
            address = pending.target or routes.address(pending.call.group)
            if address is None:
                self._routes = None
                error = ConnectionError("no node of the Redis Cluster serves this key at the moment")
            else:
                by_address.setdefault(address, []).append(pending)
        for address, batch in by_address.items():
            for start in range(0, len(batch), BATCH):
                error = self._exchange(address, batch[start : start + BATCH]) or error
        return error

    def _find_routes(self) -> Routes:
        routes = self._routes
        if routes is None:
            routes, self._clustered = discover(
                self.config, self.prefix, self._clustered, list(self._idle), self._patience
            )
            self._routes = routes
        return routes

    def _exchange(self, address: Address, batch: list[_Pending]) -> BaseException | None:
        """One round trip with one server; returns as `_attempt` does, raises when a new connection was lost."""
        connection, fresh = self._take(address)
        try:
            connection.send_packed_command([b"".join(map(_wire, batch))], check_health=False)
            error = self._read(connection, address, batch)
        except BaseException as lost:
            drop(connection)
            if not isinstance(lost, ConnectionLost) or fresh:
                raise
            # It had been idle: the server may have restarted since, and then the others are dead too.
            self._forget(address)
            return None
        if isinstance(error, ReadOnlyError):
            drop(connection)
            self._forget(address)
            self._routes = None
        else:
            self._give_back(address, connection)
        return error

    def _read(self, connection: RawConnection, address: Address, batch: list[_Pending]) -> BaseException | None:
        error: BaseException | None = None
        for pending in batch:
            loaded = pending.load and pending.call.script is not None
            pending.load = False
            pending.target = None
            if loaded:
                extra = _reply(connection)
                if isinstance(extra, Exception):
                    pending.answer(refused(extra))
            reply = _reply(connection)
            if pending.answered:
                continue
            if isinstance(reply, Exception):
                error = self._answer_error(address, pending, reply) or error
            else:
                pending.answer(reply)
        return error

    def _answer_error(self, address: Address, pending: _Pending, error: Exception) -> BaseException | None:
        """Decide what becomes of a call that got an error instead of a reply; an error returned wants a pause."""
        pending.error = error
        verdict = judge(error)
        if verdict is Verdict.LOAD:
            pending.load = True
        elif verdict is Verdict.MOVED:
            pending.target = redirect_of(error, address)
            self._clustered = True
            self._routes = None
        elif verdict is Verdict.REFUSED:
            pending.answer(refused(error))
        else:
            return error
        return None

    # -- the pool ---------------------------------------------------------------------------------------------------

    def _take(self, address: Address) -> tuple[RawConnection, bool]:
        """A connection to an address, and whether it is new."""
        with self._lock:
            idle = self._idle.get(address)
            if idle:
                return idle.pop(), False
        return open_connection(self.config, address, self._patience), True

    def _give_back(self, address: Address, connection: RawConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(address, [])
            if len(idle) < KEPT_IDLE:
                idle.append(connection)
                return
        drop(connection)

    def _forget(self, address: Address) -> None:
        with self._lock:
            idle = self._idle.pop(address, [])
        for connection in idle:
            drop(connection)


def _wire(pending: _Pending) -> bytes:
    """A call's bytes, after its script where that is missing."""
    script = pending.call.script
    load = pack(("SCRIPT", "LOAD", script.source)) if pending.load and script is not None else b""
    return load + pending.packed


def _reply(connection: RawConnection) -> Any:
    """The next reply, an error reply as an exception instance; a lost connection raises."""
    try:
        return connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except (ResponseError, BusyLoadingError, AuthenticationError) as error:
        return error


class Dedicated:
    """One connection that nobody else uses, for blocking reads. Not repeated: on an error open another one."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection

    def call(self, *args: Arg, timeout: float | None = None) -> Any:
        """Send a command and wait for its raw reply, as long as the connection was opened to wait.

        `timeout` is there for the sake of one signature in both forms: a blocking connection has one limit for all.
        Raises RedisUnavailableError for a lost connection, a timeout and an error reply alike; only after an
        error reply is the connection still usable.
        """
        try:
            return ask(self._connection, None, *args)
        except ConnectionLost as error:
            self.close()
            raise RedisUnavailableError(f"the connection to Redis was lost: {error}") from error
        except RedisError as error:
            raise refused(error) from error

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        drop(self._connection)
