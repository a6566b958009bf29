"""One connection to one address: a writer that packs what waits into one write, a reader that hands out replies.
A lane lives as long as its connection; when it ends, the engine gets back every call that is still owed a reply."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, ReadOnlyError, ResponseError

from ..core.redis_url import Address
from ._connect_aio import RawConnection, drop, open_connection
from .common import Call, pack

if TYPE_CHECKING:
    from ._engine import Engine

__all__ = ["Lane", "Pending"]

BATCH = 512
WINDOW = 2048
# How often a connection that owes replies is looked at before it is given up.
LOOKS = 4


class Pending:
    """A call that waits for its reply: its packed form, its future, and what was learnt on the way."""

    __slots__ = ("call", "deadline", "error", "future", "load", "packed", "sent_after", "tries")

    def __init__(self, call: Call, packed: bytes, future: asyncio.Future[Any], deadline: float) -> None:
        self.call = call
        self.packed = packed
        self.future = future
        self.deadline = deadline
        self.error: BaseException | None = None
        self.tries = 0
        self.load = False
        self.sent_after = 0


class _Extra:
    """Takes the place of a reply that no caller waits for: of SCRIPT LOAD, sent for `pending`."""

    __slots__ = ("pending",)

    def __init__(self, pending: Pending) -> None:
        self.pending = pending


class Lane:
    """Writes calls to one address in order and matches the replies; see the module's text."""

    def __init__(self, engine: Engine, address: Address) -> None:
        self.address = address
        self._engine = engine
        self._queue: deque[Pending] = deque()
        self._owed: deque[Pending | _Extra] = deque()
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._loads: dict[str, int] = {}
        self._sent = 0
        self._progress = 0.0
        self.task = engine.loop.create_task(self._run())

    def put(self, pending: Pending) -> None:
        """Queue a call; everything queued in one turn of the loop leaves in one write."""
        self._queue.append(pending)
        self._wake.set()

    def leave(self) -> None:
        """Hang up at once; what is owed is asked for elsewhere."""
        self._left.set()

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            connection = await open_connection(self._engine.config, self.address, self._engine.connect_timeout)
            try:
                await self._serve(connection)
            finally:
                await drop(connection)
        except asyncio.CancelledError:
            # Only the end of the loop or of the engine cancels a lane.
            self._engine.abort()
            raise
        except Exception as lost:
            error = lost
        finally:
            owed = [p for p in self._owed if isinstance(p, Pending)]
            self._engine.lane_ended(self, [*owed, *self._queue], error)

    async def _serve(self, connection: RawConnection) -> None:
        loop = self._engine.loop
        parts = (self._read(connection), self._write(connection), self._watch(), self._until_left())
        tasks = [loop.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _write(self, connection: RawConnection) -> None:
        while True:
            while not self._queue or len(self._owed) >= WINDOW:
                self._wake.clear()
                await self._wake.wait()
            parts: list[bytes] = []
            if not self._owed:
                self._progress = self._engine.loop.time()
            while self._queue and len(parts) < BATCH:
                pending = self._queue.popleft()
                if not pending.future.done():
                    self._enclose(pending, parts)
            if parts:
                await connection.send_packed_command([b"".join(parts)], check_health=False)

    def _enclose(self, pending: Pending, parts: list[bytes]) -> None:
        """Append a call's bytes, and before them its script where that is missing."""
        self._sent += 1
        script = pending.call.script
        # Many calls may have met the same missing script: only the first that was sent before the load repeats it.
        if pending.load and script is not None and self._loads.get(script.sha, 0) <= pending.sent_after:
            parts.append(pack(("SCRIPT", "LOAD", script.source)))
            self._owed.append(_Extra(pending))
            self._loads[script.sha] = self._sent
        pending.load = False
        pending.sent_after = self._sent
        parts.append(pending.packed)
        self._owed.append(pending)

    async def _read(self, connection: RawConnection) -> None:
        owed, engine = self._owed, self._engine
        while True:
            reply: Any
            try:
                reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except ReadOnlyError:
                raise
            except (ResponseError, BusyLoadingError, AuthenticationError) as error:
                reply = error
            if not owed:
                raise InvalidResponse("Redis sent a reply that nothing was asked for")
            self._progress = engine.loop.time()
            first = owed.popleft()
            if len(owed) < WINDOW and self._queue:
                self._wake.set()
            if isinstance(first, _Extra):
                if isinstance(reply, Exception):
                    engine.fail(first.pending, reply)
            elif isinstance(reply, Exception):
                engine.answer_error(self, first, reply)
            else:
                engine.succeeded(first, reply)

    async def _until_left(self) -> None:
        await self._left.wait()
        raise ConnectionError(f"{self.address} is not the primary any more")

    async def _watch(self) -> None:
        """Give the connection up when replies are owed and none comes: the peer may be gone without a word."""
        patience = self._engine.connect_timeout
        silent, progress = 0, self._progress
        while True:
            # Looks are counted, not time: a process that was stopped for long finds the replies at its next look.
            await asyncio.sleep(patience / LOOKS)
            silent = silent + 1 if self._owed and self._progress == progress else 0
            progress = self._progress
            if silent >= LOOKS:
                raise TimeoutError(f"no reply from {self.address} for {patience:g} s")
