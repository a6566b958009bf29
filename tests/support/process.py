# A child process of a test, with its output in a file: started, frozen, stopped and killed by its own id only.
# Redis servers and imservers build on it.

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import wait_until

_TAIL_BYTES = 16_384


class Process:
    """One program that can be started again with the same arguments; both its output streams go to `log`."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.arguments = list(command)
        self.log = log
        self.env = dict(env) if env is not None else None
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the current, or else of the last, run."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """What the last run ended with (negative: a signal); None while it runs."""
        return None if self._popen is None else self._popen.poll()

    @property
    def output(self) -> str:
        """All that was written to stdout and stderr, over all runs."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def output_tail(self) -> str:
        return self.output[-_TAIL_BYTES:]

    def launch(self) -> None:
        """Start the program without waiting for it to be ready."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.env
            )

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM; returns at once."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: the process exists but does nothing until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self._signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(timeout=10)

    def wait(self, timeout: float = 20) -> int:
        """The exit status, once the program has ended by itself or after `terminate`."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._popen.wait(timeout=timeout)

    async def wait_async(self, timeout: float = 20) -> int:
        """As `wait`, while the test's event loop goes on (a draining server needs its clients to answer)."""
        return await asyncio.to_thread(self.wait, timeout)

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM and wait; answers the exit status."""
        self.terminate()
        return self.wait(timeout)

    async def stop_async(self, timeout: float = 20) -> int:
        self.terminate()
        return await self.wait_async(timeout)

    def wait_output(self, text: str, timeout: float = 10) -> None:
        """Wait until `text` stands in the output."""
        wait_until(lambda: text in self.output, timeout, f"{text!r} in the output of {self.name}")

    def dispose(self) -> None:
        """Leave nothing behind: whatever still runs is killed."""
        self.kill()
