# The processes of a run: a Redis and imservers under a supervisor that starts again whatever ends.
# Faults act on them by name; a server that is down on purpose stays so until the time that was set for it.

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from tests.chaos.ledger import now
from tests.chaos.store import Store
from tests.support.imserver import ImServer, Setting

__all__ = ["Managed", "World"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


class Managed:
    """A server under supervision. `rest_until` keeps it down, `retired` for good once it has ended."""

    def __init__(self, process: ImServer) -> None:
        self.process = process
        self.rest_until = 0.0
        self.retired = False
        self.frozen = False
        self.busy = False
        self.started = 0.0
        self.running = False
        self.exits: list[int] = []
        self.peak_kilobytes = 0

    @property
    def name(self) -> str:
        return self.process.name

    def launch(self) -> None:
        """Start the process (again)."""
        self.process.launch()
        self.started = now()
        self.running = True

    def sample(self) -> None:
        """Read the peak of its memory; it may have ended meanwhile."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        for line in text.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_kilobytes = max(self.peak_kilobytes, int(line.split()[1]))


class World:
    """A Redis and some imservers.

    Args:
        folder: where data and logs go; it must exist.
        store: the Redis, not yet started.
        servers: how many imservers are wanted.
        settings: of all imservers.
    """

    def __init__(self, folder: Path, store: Store, servers: int, **settings: Setting) -> None:
        self.folder = folder
        self.store = store
        self.wanted = servers
        self.servers: list[Managed] = []
        self._settings = settings
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything and wait until all servers are ready."""
        await asyncio.to_thread(self.store.start)
        self.store.watch()
        for _ in range(self.wanted):
            self.add()
        self._task = asyncio.get_running_loop().create_task(self._supervise())
        await self.all_ready(30)

    def add(self) -> Managed:
        """Start one more server, under a name that was never used."""
        managed = Managed(ImServer(f"s{self._count}", self.store.url, self.folder, **self._settings))
        self._count += 1
        self.servers.append(managed)
        managed.launch()
        return managed

    @property
    def current(self) -> list[Managed]:
        """The servers that are to run."""
        return [m for m in self.servers if not m.retired]

    @property
    def healthy(self) -> list[Managed]:
        """The servers that no fault holds at the moment and that have had time to start."""
        return [m for m in self.current if m.process.running and not m.frozen and not m.busy and now() - m.started > 3]

    async def _supervise(self) -> None:
        while True:
            for managed in self.servers:
                process = managed.process
                managed.sample()
                if process.running or process.returncode is None:
                    continue
                if managed.running:
                    log.info("%s ended with %s", managed.name, process.returncode)
                    managed.exits.append(process.returncode)
                    managed.running = False
                if not managed.retired and now() >= managed.rest_until:
                    managed.launch()
            await asyncio.sleep(LOOK_SECONDS)

    async def all_ready(self, timeout: float) -> None:
        """Wait until every server that is to run is ready. Raises AssertionError."""
        await self._until(lambda: all(m.process.running and m.process.ready() for m in self.current), timeout)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = now() + timeout
        while not await asyncio.to_thread(condition):
            if now() > deadline:
                raise AssertionError(f"not all servers are ready after {timeout:g} s")
            await asyncio.sleep(0.1)

    def errors_in_logs(self) -> list[str]:
        """Lines of the servers' logs that tell of something that should not happen."""
        found = []
        for managed in self.servers:
            for line in managed.process.output.splitlines():
                if ("ERROR" in line and "fenced" not in line) or "CRITICAL" in line or line.startswith("Traceback"):
                    found.append(f"{managed.name}: {line}")
        return found

    async def stop(self) -> None:
        """Leave nothing behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for managed in self.servers:
            managed.process.thaw()
            managed.process.dispose()
        self.store.dispose()
