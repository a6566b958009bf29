"""Puts a server together: starts it, watches its tasks, drains and ends it.
A task that ends by itself ends the process: a supervisor starts a clean one, and clients resume."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from socket import SO_RCVBUF, SOL_SOCKET
from time import monotonic
from typing import TypeVar

from imhelper._backend.aio import Link
from imhelper.core import scripts
from imhelper.core.redis_url import RedisConfig, parse_redis_url
from imhelper.core.slots import CLUSTER_GROUPS
from imhelper.core.topology import ACTIVE
from imhelper.errors import RedisUnavailableError

from .admin import start_admin
from .drain import GOING_AWAY, TableDrain, drain, tell_publisher
from .groups import each
from .heard import RECEIVE_BYTES, TICK_SECONDS
from .hub import PATIENCE_SECONDS, Hub
from .janitor import Janitor
from .lease import Fenced, LeaseKeeper
from .metrics import make_registry
from .publisher import SelfPublisher
from .reader import Reader
from .settings import Settings
from .socket import Socket
from .waiting import until

__all__ = ["EXIT_FAILED", "EXIT_FENCED", "Server", "redis_config"]

log = logging.getLogger(__name__)
R = TypeVar("R")

EXIT_FAILED = 1
EXIT_FENCED = 75  # EX_TEMPFAIL of sysexits.h: start me again
REDIS_TIMEOUT = 2.5
START_RETRY_SECONDS = 1.0
# How long Redis has to take the goodbye, and after a second signal.
END_SECONDS, AT_ONCE_SECONDS = 5.0, 0.5
SLOW_START_SECONDS = 10.0
LOOP_CHECK_SECONDS = 0.5
# Sockets come and go without leaving a cycle, so that looking for some is nearly all cost. Python's own thresholds
# (700, 10, 10) look 170 times in 15,000 handshakes, once at everything, which holds up the loop for 20 to 40 ms. These
# look 21 times, at 30,000 objects at most (7 ms), and at everything only after some three million new ones.
GC_THRESHOLDS = 5000, 5, 100


def redis_config(settings: Settings) -> RedisConfig:
    """How to reach Redis. The password's file is read again at each connection. Raises SettingError."""

    def password() -> str:
        with open(settings.redis_password_file or "", encoding="utf-8") as file:
            return file.read().strip()

    return parse_redis_url(
        settings.redis_url,
        username=settings.redis_username,
        password=password if settings.redis_password_file else None,
        ssl_ca_certs=settings.redis_ca_file,
        ssl_certfile=settings.redis_cert_file,
        ssl_keyfile=settings.redis_key_file,
    )


class Server:
    """One imserver. `run` returns the exit code."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.link = Link(redis_config(settings), prefix=settings.prefix, timeout=REDIS_TIMEOUT)
        self.hub = Hub(settings, self.link)
        self.publisher = SelfPublisher(self.hub) if settings.topology == "self" else None
        self.keeper = LeaseKeeper(self.hub, self.publisher)
        self.table_drain = TableDrain(self.hub, self.keeper)
        self.readers: list[Reader] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._signals = 0
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    async def run(self) -> int:
        """Listen, join the cluster, serve until a signal or a failure. Raises OSError when a port is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        s = self.settings
        admin = await start_admin(
            s.admin_port, make_registry(self.hub, lambda: self.readers), self.problems, self.unready
        )
        public = await loop.create_server(lambda: Socket(self.hub), None, s.port, backlog=4096)
        for listening in public.sockets:
            listening.setsockopt(SOL_SOCKET, SO_RCVBUF, RECEIVE_BYTES)
        log.info("server %s listens on port %d, admin on %d", s.server_name, s.port, s.admin_port)
        self._warn_of_little_room()
        try:
            return await self._serve()
        finally:
            public.close()
            admin.close()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self.link.close()

    def problems(self) -> list[str]:
        """What is wrong with the process itself: a task that has ended."""
        return [f"{name} has ended" for name, task in self._tasks.items() if task.done()]

    def unready(self) -> list[str]:
        """Why no new clients should come. Redis being away is no reason: the other servers can't reach it either."""
        found = self.problems()
        if self.hub.draining:
            found.append("draining")
        if not self.hub.ready:
            found.append("waiting for Redis" if not self.hub.redis_up else "waiting for the topology and the readers")
        elif self.hub.redis_up:
            found.extend(f"reader of group {i} is not healthy" for i, r in enumerate(self.readers) if not r.healthy)
        return found

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._stop_now.set()

    def _start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def body() -> None:
            await work()

        self._tasks[name] = asyncio.get_running_loop().create_task(body(), name=name)

    async def _serve(self) -> int:
        for name, work in (
            ("fan-out", self.hub.fanout.run),
            ("presence", self.hub.presence.run),
            ("gate", self.hub.run_gate),
            ("patience", lambda: self._turn(PATIENCE_SECONDS / self.hub.patience.size, self._lose_patience)),
            ("pings", lambda: self._turn(self.settings.ping_seconds / self.hub.pings.size, self._ping)),
            ("loop check", self._check_loop),
            ("losses", self.hub.losses.run),
            ("heard", lambda: self._turn(TICK_SECONDS, self.hub.heard.tick)),
        ):
            self._start(name, work)
        joined = asyncio.get_running_loop().create_task(self._join())
        stop = asyncio.get_running_loop().create_task(self._stop.wait())
        try:
            await asyncio.wait([joined, stop], return_when=asyncio.FIRST_COMPLETED)
            if not joined.done():
                joined.cancel()
                await asyncio.gather(joined, return_exceptions=True)
                return await self._leave() if self.hub.redis_up else 0
            try:
                joined.result()
            except Fenced:
                return await self._fenced()
            await asyncio.wait([stop, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            return await self._leave() if stop.done() else await self._failed()
        finally:
            joined.cancel()
            stop.cancel()

    async def _join(self) -> None:
        """Wait for Redis, take the name, learn the topology, follow the logs."""
        hub = self.hub
        await self._until_answered(self.link.ready)
        await self._until_answered(self.keeper.look)
        await self._until_answered(self.keeper.beat)
        hub.redis_up = True
        if self.publisher is not None and hub.topology is not None and not self._listed():
            # Or the first clients after readiness would find this server in no table yet.
            await tell_publisher(hub, self.keeper)
        self._start("lease", self.keeper.run)
        while not await until(lambda: hub.topology is not None or bool(self.problems()), SLOW_START_SECONDS):
            log.warning("no topology is published under prefix %r yet", self.settings.prefix)
        if hub.topology is None:
            return
        if hub.topology.groups == 1 and self.link.groups == CLUSTER_GROUPS:
            log.warning("the topology has one group, so that all keys are on one node of the Redis Cluster")
        for group in range(hub.groups):
            incarnation = await self._until_answered(
                lambda group=group: self.link.eval(scripts.load("boot"), group, hub.boot)  # type: ignore[misc]
            )
            if incarnation is None:
                raise Fenced
            hub.incarnation[group] = incarnation + b"."
            self.readers.append(Reader(hub, group))
        hub.wake_reader = lambda slot: self.readers[slot.group].wake()
        hub.writes_lost = lambda group: self.readers[group].doubt()
        for reader in self.readers:
            self._start(f"reader {reader.group}", reader.run)
            self._start(f"canary {reader.group}", reader.run_canary)
        self._start("table drain", self.table_drain.run)
        self._start("positions", hub.presence.run_positions)
        self._start("restore", hub.presence.run_restore)
        self._start("janitor", Janitor(hub).run)
        for worker in range(hub.replayer.workers):
            self._start(f"replay {worker}", hub.replayer.work)
        while not await until(
            lambda: all(r.healthy for r in self.readers) or bool(self.problems()), SLOW_START_SECONDS
        ):
            log.warning("what is written to Redis does not come back yet")
        if self.problems():
            return
        await self._warn_of_eviction()
        hub.ready = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        log.info("server %s is ready", self.settings.server_name)

    def _listed(self) -> bool:
        topology, me = self.hub.topology, self.settings.server_name
        return topology is not None and any(s.name == me and s.state == ACTIVE for s in topology.servers)

    async def _until_answered(self, call: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                return await call()
            except RedisUnavailableError as error:
                log.warning("waiting for Redis: %s", error)
                await asyncio.sleep(START_RETRY_SECONDS)

    def _warn_of_little_room(self) -> None:
        wanted, room = self.settings.max_connections, self.hub.room.connections
        if room < wanted:
            text = "the limit of open files has room for %d connections, not for the %d of IM_MAX_CONNECTIONS"
            log.warning(text, room, wanted)
        if self.settings.retain_bytes < 4 * self.settings.max_payload_bytes:
            # The trim leaves four entries in any case.
            log.warning("IM_RETAIN_BYTES is less than 4 times IM_MAX_PAYLOAD_BYTES: a few large messages fill a log")

    async def _warn_of_eviction(self) -> None:
        policy = await self.link.eviction_policy()
        if policy not in (None, "noeviction"):
            log.warning("Redis must run with maxmemory-policy noeviction, not %s: it may drop messages", policy)

    async def _failed(self) -> int:
        for name, task in self._tasks.items():
            if not task.done():
                continue
            error = task.exception() if not task.cancelled() else None
            if isinstance(error, Fenced):
                return await self._fenced()
            log.critical("%s has ended; the server ends to be started again", name, exc_info=error)
        await self._close_all(1012)
        return EXIT_FAILED

    async def _fenced(self) -> int:
        log.error("this server was fenced: all its clients go elsewhere, and it ends to be started again")
        await self._close_all(1012)
        return EXIT_FENCED

    async def _leave(self) -> int:
        """Drain, tell Redis, end. A second signal cuts it short, and a task that ends: then nobody would be served."""
        self.table_drain.stop()
        now = asyncio.get_running_loop().create_task(self._stop_now.wait())
        draining = asyncio.get_running_loop().create_task(drain(self.hub, self.keeper))
        try:
            await asyncio.wait([now, draining, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                draining.result()
            elif not now.done():
                return await self._failed()
        finally:
            now.cancel()
            draining.cancel()
        await self._close_all(1012)
        try:
            async with asyncio.timeout(END_SECONDS) as limit:
                hurry = asyncio.get_running_loop().create_task(self._hurry(limit))
                try:
                    await self._goodbye()
                finally:
                    hurry.cancel()
        except (TimeoutError, RedisUnavailableError) as error:
            log.warning("Redis could not be told of the end; another server will reclaim: %s", error)
        log.info("server %s has ended", self.settings.server_name)
        return 0

    async def _hurry(self, limit: asyncio.Timeout) -> None:
        """After a second signal, before or now, a Redis that does not answer holds nobody up."""
        await self._stop_now.wait()
        limit.reschedule(asyncio.get_running_loop().time() + AT_ONCE_SECONDS)

    async def _close_all(self, code: int) -> None:
        self.hub.draining = self.hub.ending = True
        self.hub.close_all(code, GOING_AWAY)
        # A moment for close frames to leave; clients that do not answer are cut off.
        await until(lambda: not self.hub.connected, 1.0)
        for socket in list(self.hub.connected):
            socket.transport.abort()

    async def _goodbye(self) -> None:
        hub = self.hub
        # First of all no more beats: one after the goodbye would take back what is given up here.
        beats = [task for name, task in self._tasks.items() if name == "lease"]
        for task in beats:
            task.cancel()
        await asyncio.gather(*beats, return_exceptions=True)
        while not hub.presence.idle:
            await hub.presence.flush()
        await each(range(hub.groups), lambda group: self.link.eval(scripts.load("goodbye"), group, hub.boot))
        if self.publisher is not None:
            await self.publisher.release()
        await self.link.eval(scripts.load("part"), None, self.settings.server_name, hub.boot)

    async def _turn(self, seconds: float, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            work()

    def _lose_patience(self) -> None:
        self.hub.patience.tick(self.hub.lose_patience)

    def _ping(self) -> None:
        self.hub.pings.tick(self.hub.look_at_ping)

    async def _check_loop(self) -> None:
        while True:
            began = monotonic()
            await asyncio.sleep(LOOP_CHECK_SECONDS)
            self.hub.stats.loop_lag = max(0.0, monotonic() - began - LOOP_CHECK_SECONDS)
