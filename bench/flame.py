"""Records where the time of a work goes: py-spy on servers and helper, Redis's own statistics.

`python -m bench --flame DIR WORK …` writes DIR/WORK-server.svg, DIR/WORK-helper.svg and DIR/WORK-redis.txt. Figures of
such a run are not to be quoted: the sampler pauses what it samples.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from redis.asyncio import Redis

from bench.errors import BenchError
from bench.flamegraph import fold, svg
from imhelper.core.scripts import load

RATE = 199
STOP_SECONDS = 20
# What the children of a run are in the names of the files. Further servers do what these do; the first may be killed.
ROLES = {"bench-0": "server", "bench-1": "server", "sender": "helper", "pusher": "helper"}
SLOW_US, SLOW_MS, SLOW_KEPT, COMMANDS = 1000, 1, 1000, 30

# One run has one recorder; the processes to be recorded start deep inside the works.
_recorder: "Recorder | None" = None


class Recorder:
    """Records every work of a run into a folder.

    Args:
        folder: made if it is not there.

    Raises:
        BenchError: there is no py-spy.
    """

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).parent / "py-spy"
        found = str(beside) if beside.exists() else shutil.which("py-spy")
        if found is None:
            raise BenchError("--flame needs py-spy and found none: pip install py-spy")
        self._py_spy = found
        self._folder = folder
        self._stacks: dict[str, Counter[tuple[str, ...]]] = {}
        self._redis: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def sample(self, role: str, pid: int) -> AsyncIterator[None]:
        """Samples a process while entered.

        Raises:
            BenchError: py-spy could not; the message is its own.
        """
        with tempfile.TemporaryDirectory(prefix="imcluster-flame-") as folder:
            raw = Path(folder) / "stacks"
            # Native frames, for the loop and what it calls are compiled: without them half of the time has no name.
            command = [self._py_spy, "record", "--pid", str(pid), "--format", "raw", "--function", "--native"]
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--rate", str(RATE), "--output", str(raw)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            said = asyncio.create_task(process.communicate())
            try:
                yield
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGINT)
                try:
                    _, errors = await asyncio.wait_for(said, STOP_SECONDS)
                except TimeoutError:
                    process.kill()
                    raise BenchError(f"py-spy did not end within {STOP_SECONDS} s") from None
            if not raw.exists():
                raise BenchError(f"py-spy recorded nothing of {role}: {errors.decode(errors='replace').strip()}")
            self._stacks.setdefault(role, Counter()).update(fold(raw.read_text().splitlines()))

    async def redis_begins(self, url: str) -> None:
        """Has a Redis count from zero, and keep what was slow."""
        async with Redis.from_url(url) as redis:
            await redis.config_set("latency-monitor-threshold", SLOW_MS)
            await redis.config_set("slowlog-log-slower-than", SLOW_US)
            await redis.config_set("slowlog-max-len", SLOW_KEPT)
            await redis.config_resetstat()

    async def redis_ends(self, url: str) -> None:
        """Notes what a Redis did since: its commands by time, its latency events, its slowest commands."""
        async with Redis.from_url(url, decode_responses=True) as redis:
            stats: dict[str, dict[str, float]] = await redis.info("commandstats")
            latest: list[list[str]] = await redis.latency_latest()  # type: ignore[assignment]
            slow = await redis.slowlog_get(SLOW_KEPT)
        lines = ["command                        calls        seconds     us a call"]
        for name, seen in sorted(stats.items(), key=lambda item: -item[1]["usec"])[:COMMANDS]:
            command = name.removeprefix("cmdstat_")
            lines.append(f"{command:24} {seen['calls']:11} {seen['usec'] / 1e6:14.3f} {seen['usec_per_call']:13.2f}")
        lines += [f"latency: {event[0]} latest {event[2]} ms, highest {event[3]} ms" for event in latest]
        slowest: dict[str, list[int]] = {}
        for entry in slow:
            slowest.setdefault(_named(entry["command"]), []).append(int(entry["duration"]))
        for command, took in sorted(slowest.items(), key=lambda item: -max(item[1])):
            lines.append(f"slow: {command}: {len(took)} times over {SLOW_US} us, the longest {max(took)} us")
        self._redis.append("\n".join(lines) + "\n")

    def write(self, work: str) -> list[Path]:
        """The files of a work; then nothing is left of it."""
        written = []
        for role, stacks in self._stacks.items():
            written.append(self._folder / f"{work}-{role}.svg")
            written[-1].write_text(svg(stacks, f"{work}: {role}, {sum(stacks.values())} samples at {RATE}/s"))
        if self._redis:
            written.append(self._folder / f"{work}-redis.txt")
            written[-1].write_text("\n".join(self._redis))
        self._stacks, self._redis = {}, []
        return written


def _named(command: bytes | str) -> str:
    """A command of the slow log by its name, a script by its own."""
    words = (command.decode(errors="replace") if isinstance(command, bytes) else command).split(" ", 2)
    if words[0].upper() != "EVALSHA":
        return words[0]
    scripts = files("imhelper") / "lua"
    names = [
        file.name.removesuffix(".lua") for file in scripts.iterdir() if file.name not in ("lib.lua", "__pycache__")
    ]
    return next((f"script {name}" for name in names if load(name).sha == words[1]), "EVALSHA of another")


def record_into(folder: Path | None) -> Recorder | None:
    """From now on children with a role are recorded, or, with None, nothing is any more."""
    global _recorder
    _recorder = Recorder(folder) if folder else None
    return _recorder


def recorder() -> Recorder | None:
    """The recorder of this run, if it has one."""
    return _recorder
