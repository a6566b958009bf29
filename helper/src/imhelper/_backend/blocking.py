"""The blocking way to Redis: no thread of its own, a small pool of connections, safe across threads and forks.
Same methods and meaning as `aio.Link`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from ..core.redis_url import Address, RedisConfig
from ..core.scripts import Script
from ..core.slots import CLUSTER_GROUPS
from ..errors import RedisUnavailableError
from ._connect_blocking import RawConnection, ask, drop, limit, open_connection
from ._discover_blocking import discover
from ._pool import Pool
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
    policy_of,
    redirect_of,
    refused,
    unanswered,
)

__all__ = ["Dedicated", "Link"]

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


class _Trip:
    """Calls on their way to one server and back, and how long their connection waits for it."""

    __slots__ = ("address", "batch", "connection", "fresh", "patience")

    def __init__(self, address: Address, batch: list[_Pending], patience: float) -> None:
        self.address = address
        self.batch = batch
        self.connection: RawConnection = None
        self.fresh = False
        self.patience = patience

    def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            drop(connection)


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
        self._pool = Pool()
        self._routes: Routes | None = None
        self._routes_at = 0.0
        self._told_by: Address | None = None
        self._clustered: bool | None = {"cluster": True, "sentinel": False, "single": None}[self.config.kind]
        # Last, so that no other thread of a forked child takes the parent's connections for its own.
        self._pid = os.getpid()

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
        return policy_of(reply)

    def close(self) -> None:
        """Close all idle connections; one in use is closed when its call ends. A later call connects again."""
        if self._pid != os.getpid():
            self._reset()
            return
        self._pool.close()
        self._routes = None

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
        generation = self._pool.generation
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
                lost = self._attempt(waiting, deadline, generation)
            except Exception as failure:
                lost = self._lost(waiting, failure)
            rounds += 1
            if lost is not None or rounds > MAX_ROUNDS:
                failures += 1
                error = lost or error
            waiting = [p for p in waiting if not p.answered]

    def _lost(self, calls: list[_Pending], failure: Exception) -> Exception:
        """There is no way for these calls at the moment: look for it again, unless that makes no sense."""
        self._routes = None
        if not may_pass(failure):
            for pending in calls:
                if not pending.answered:
                    pending.answer(refused(failure))
        return failure

    def _attempt(self, calls: list[_Pending], deadline: float, generation: int) -> BaseException | None:
        """Try once. Returns why what is left must wait, or None when it may be repeated at once."""
        routes = self._find_routes(deadline)
        by_address: dict[Address, list[_Pending]] = {}
        error: BaseException | None = None
        for pending in calls:
            address = pending.target or routes.address(pending.call.group)
            if address is None:
                self._routes = None
                error = ConnectionError("no node of the Redis Cluster serves this key at the moment")
            else:
                by_address.setdefault(address, []).append(pending)
        while by_address:
            trips = [_Trip(address, batch[:BATCH], self._patience) for address, batch in by_address.items()]
            error = self._exchange(trips, deadline, generation) or error
            by_address = {a: batch[BATCH:] for a, batch in by_address.items() if len(batch) > BATCH}
        return error

    def _find_routes(self, deadline: float) -> Routes:
        routes = self._routes
        old = self.config.kind == "sentinel" and time.monotonic() - self._routes_at > SENTINEL_SECONDS
        if routes is None or old:
            known = [*([self._told_by] if self._told_by else []), *self._pool.addresses()]
            # Who only makes sure takes no more than half of the time that the call itself has.
            seconds = (deadline - time.monotonic()) / (1 if routes is None else 2)
            try:
                way = discover(self.config, self.prefix, self._clustered, known, seconds)
            except Exception:
                if routes is None:
                    raise
                # The primary may be well all the same; if it is not, the calls themselves will tell.
                found = routes
            else:
                found, self._clustered, self._told_by = way
            if routes is not None and (left := routes.address(None)) not in (None, found.address(None)):
                self._pool.forget(left)
            routes = self._routes = found
            self._routes_at = time.monotonic()
        return routes

    def _exchange(self, trips: list[_Trip], deadline: float, generation: int) -> BaseException | None:
        """One round trip with each server, all under way at once; a server that is away holds up no other one.

        Returns as `_attempt` does.
        """
        error: BaseException | None = None
        ahead = len(trips)
        try:
            for trip in trips:
                try:
                    # A share of the time for each: for those that are still to be asked, and for the answers.
                    self._send(trip, (deadline - time.monotonic()) / (ahead + 1))
                except Exception as failure:
                    error = self._failed(trip, failure) or error
                ahead -= 1
            until = min(deadline, time.monotonic() + self._patience)
            for trip in trips:
                if trip.connection is not None:
                    try:
                        error = self._receive(trip, until - time.monotonic(), generation) or error
                    except Exception as failure:
                        error = self._failed(trip, failure) or error
        finally:
            # Whatever is left here was interrupted, and has replies under way that belong to nobody.
            for trip in trips:
                trip.drop()
        return error

    def _send(self, trip: _Trip, seconds: float) -> None:
        trip.connection = self._pool.take(trip.address)
        if trip.connection is None:
            trip.fresh = True
            trip.patience = min(self._patience, max(0.05, seconds))
            trip.connection = open_connection(self.config, trip.address, trip.patience)
        self._bound(trip, seconds)
        trip.connection.send_packed_command([b"".join(map(_wire, trip.batch))], check_health=False)

    def _receive(self, trip: _Trip, seconds: float, generation: int) -> BaseException | None:
        self._bound(trip, seconds)
        error = self._read(trip.connection, trip.address, trip.batch)
        if isinstance(error, ReadOnlyError):
            trip.drop()
            self._pool.forget(trip.address)
            self._routes = None
        else:
            self._bound(trip, self._patience)
            connection, trip.connection = trip.connection, None
            self._pool.give_back(trip.address, connection, generation)
        return error

    def _bound(self, trip: _Trip, seconds: float) -> None:
        """Let a connection wait for `seconds` at most. To change that is a system call: only where it counts."""
        wanted = self._patience if seconds > 0.9 * self._patience else seconds
        if trip.patience != wanted:
            limit(trip.connection, wanted)
            trip.patience = wanted

    def _failed(self, trip: _Trip, failure: Exception) -> BaseException | None:
        """What it means that a connection was lost, or could not be had; returns as `_attempt` does."""
        trip.drop()
        if trip.fresh or not isinstance(failure, ConnectionLost):
            return self._lost(trip.batch, failure)
        # It had been idle: the server may have restarted since, and then the others are dead too.
        self._pool.forget(trip.address)
        return None

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
