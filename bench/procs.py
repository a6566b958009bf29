"""Child processes of a run: what they cost (CPU, memory), and the ones that speak JSON lines.

Everything is bounded: a child that does not answer in time ends the run with BenchError.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.errors import BenchError
from bench.flame import ROLES, recorder

STOP_SECONDS = 3
STARTUP_SECONDS = 10


def cpu_seconds(pid: int) -> float:
    """CPU of a process so far, all its threads, user and system, in seconds.

    Reads the process's CPU-time clock (clock_getcpuclockid(3)), whose nanoseconds tell the cost of one message, where
    the 10 ms ticks of /proc/PID/stat would not. What the kernel does within a send(2), up to the receiver's socket
    buffer on loopback, is in it.

    Raises:
        BenchError: there is no such process.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise BenchError(f"process {pid} is gone: {error.strerror}") from error


def rss_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, from /proc/PID/smaps_rollup (exact, unlike statm's per-CPU counters).

    Raises:
        BenchError: there is no such process.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise BenchError(f"the memory of process {pid} can't be read: {error.strerror}") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def tcp_peers_of(pid: int, port: int) -> set[str]:
    """The local addresses ("127.0.0.1:54321") of a process's IPv4 connections to `port` of this machine."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = descriptor.readlink().name
        except FileNotFoundError:  # closed since the listing
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and int(fields[2].partition(":")[2], 16) == port:
            address, _, local_port = fields[1].partition(":")
            octets = bytes.fromhex(address)[::-1]
            found.add(f"{'.'.join(map(str, octets))}:{int(local_port, 16)}")
    return found


async def settle(*pids: int, share: float = 0.1, window: float = 0.3, timeout: float = 10) -> None:
    """Waits until the processes together use less than `share` of a core over `window` seconds.

    What an earlier step left to do must not be charged to the next one. Gives up silently after `timeout` seconds:
    a busy idle loop is a figure, too.
    """
    deadline = time.monotonic() + timeout
    before = sum(map(cpu_seconds, pids))
    while time.monotonic() < deadline:
        await asyncio.sleep(window)
        now = sum(map(cpu_seconds, pids))
        if now - before < share * window:
            return
        before = now


class Child:
    """A child process whose stderr goes to a log file; stopped with SIGTERM, then SIGKILL.

    Args:
        name: what error messages call it.
        command: program and arguments.
        log: file that takes its stderr.
        environment: its whole environment; None: ours.
    """

    speaks = False

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = [str(part) for part in command]
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._sampling = AsyncExitStack()

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE if self.speaks else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self.speaks else log,
                stderr=log,
                env=self._environment,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self.process
        await self._sampling.aclose()
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def sample(self) -> None:
        """Records where its time goes until it is stopped, if this run does and it has a role; once it is up."""
        if (recording := recorder()) and (role := ROLES.get(self.name)):
            await self._sampling.enter_async_context(recording.sample(role, self.pid))

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.process.kill()
        await self.process.wait()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process; only once entered."""
        if self._process is None:
            raise BenchError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """The process id; only once entered."""
        return self.process.pid

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that the process wrote to stderr."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def fail(self, why: str) -> BenchError:
        """An error that says `why` about this process and quotes the end of its log."""
        return BenchError(f"{self.name} {why}\n{self.log_tail()}".rstrip())

    def check_alive(self) -> None:
        """Raises BenchError, with the end of the log, if the process has ended."""
        if self.process.returncode is not None:
            raise self.fail(f"ended with exit code {self.process.returncode}")


class Speaker(Child):
    """A child that takes one command a line on stdin and answers some of them with one JSON object a line."""

    speaks = True

    async def tell(self, command: str) -> None:
        """Sends a command that has no answer."""
        stdin = self.process.stdin
        if stdin is None:
            raise BenchError(f"{self.name} has no stdin")
        stdin.write(f"{command}\n".encode())
        await stdin.drain()

    async def hear(self, event: str, timeout: float = STARTUP_SECONDS) -> dict[str, Any]:
        """The next line, which must be an `event`; waits at most `timeout` seconds.

        Raises:
            BenchError: no line in time, the process ended, or the line is another event.
        """
        stdout = self.process.stdout
        if stdout is None:
            raise BenchError(f"{self.name} has no stdout")
        try:
            line = await asyncio.wait_for(stdout.readline(), timeout)
        except TimeoutError as error:
            raise self.fail(f"did not say {event!r} within {timeout} s") from error
        if not line:
            raise self.fail(f"ended before it said {event!r}")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("event") != event:
            raise self.fail(f"said {answer.get('event')!r} instead of {event!r}")
        if event == "ready":
            await self.sample()
        return answer

    async def ask(self, command: str, event: str, timeout: float = STARTUP_SECONDS) -> dict[str, Any]:
        """Sends a command and returns its answer, as `hear` does."""
        await self.tell(command)
        return await self.hear(event, timeout)


def load_average() -> float:
    """The machine's load over the last minute, so that a reader can tell a disturbed run."""
    return os.getloadavg()[0]
