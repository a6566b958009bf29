"""The two C programs as the works drive them: the load generator and the floor.

The commands are described at the top of bench/native/loadgen.c and floor.c.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.build import program
from bench.errors import BenchError
from bench.procs import Speaker

SOCKETS_A_PROCESS = 19_000
HANDSHAKE_SECONDS = 120
DELIVERY_SECONDS = 60
SOURCES = 8
MODES = ("plain", "envelope")


@dataclass(frozen=True)
class Delivered:
    """What loadgen saw since its last reset: messages in all and on the sockets that got fewest and most of them."""

    messages: int
    fewest: int
    most: int
    latency_us: dict[str, int]
    channel_latency_us: dict[str, int] = field(default_factory=dict)


class Loadgen(Speaker):
    """A load generator process; holds up to 19,000 sockets.

    Args:
        folder: where it puts its URL files and its log.
        name: what error messages call it; unique within the folder.
        first_source: its sockets leave from 127.0.0.N to 127.0.0.N+7, so that several generators don't share ports.
    """

    def __init__(self, folder: Path, name: str, first_source: int) -> None:
        super().__init__(name, [program("loadgen"), str(first_source), str(SOURCES)], folder / f"{name}.log")
        self._folder = folder
        self._files = itertools.count()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.hear("ready")
        return self

    async def connect(
        self, urls: Sequence[str], mode: str = "plain", *, rate: int = 0, concurrency: int = 128
    ) -> float:
        """Opens one socket a URL and returns the handshakes a second (wall clock).

        Args:
            urls: minted URLs, each used once.
            mode: "plain" or "envelope".
            rate: at most that many a second; 0: as fast as `concurrency` allows.
            concurrency: handshakes under way at once.

        Raises:
            BenchError: not every socket opened; the message holds the HTTP statuses seen.
        """
        file = self._folder / f"{self.name}-{next(self._files)}.urls"
        file.write_text("".join(f"{url}\n" for url in urls))
        done = await self.ask(f"connect {file} {rate} {concurrency} {mode}", "connected", HANDSHAKE_SECONDS)
        if done["opened"] != len(urls):
            seen = told(await self.stats())
            raise BenchError(f"{self.name}: {done['failed']} of {len(urls)} sockets did not open; it saw {seen}")
        return float(done["handshakes_per_second"])

    async def stats(self) -> dict[str, Any]:
        """All counters, as loadgen prints them."""
        return await self.ask("stats", "stats")

    async def reset(self) -> None:
        """Counts messages from zero; those that are sent after this returned are counted."""
        await self.tell("reset")
        await self.stats()  # its answer tells that the reset has been done

    async def expect(self, messages: int, timeout: float = DELIVERY_SECONDS) -> None:
        """Resets the counters and asks to be told of that many messages; `delivered` then waits for them."""
        await self.reset()
        await self.tell(f"expect {messages} {int(timeout * 1000)}")

    async def received(self, messages: int, timeout: float = DELIVERY_SECONDS) -> Delivered:
        """As `delivered`, since the last `reset`: for a number that was not known before all was sent."""
        await self.tell(f"expect {messages} {int(timeout * 1000)}")
        return await self.delivered(messages, timeout)

    async def positions(self) -> list[str]:
        """The last position that each socket was given, in the order of the URLs; "" where there was none."""
        file = self._folder / f"{self.name}.positions"
        await self.ask(f"positions {file}", "positions")
        return file.read_text().split("\n")[:-1]

    async def close(self) -> None:
        """Closes all sockets with 1000 and waits until the server has answered each.

        Raises:
            BenchError: a server left some of them hanging.
        """
        await self.ask("close", "closed", HANDSHAKE_SECONDS)
        seen = await self.stats()
        if seen["timeouts"] or seen["eofs"]:
            raise BenchError(f"{self.name}: not every socket was closed with a goodbye; it saw {told(seen)}")

    async def delivered(self, messages: int, timeout: float = DELIVERY_SECONDS) -> Delivered:
        """Waits for what `expect` announced.

        Raises:
            BenchError: the count was not reached in time, was exceeded, or a socket was closed meanwhile.
        """
        await self.hear("expect", timeout + 5)
        seen = await self.stats()
        if seen["messages"] != messages or seen["closes"] or seen["eofs"]:
            raise BenchError(f"{self.name}: {messages} messages were due; it saw {told(seen)}")
        fewest, most = seen["min_per_socket"], seen["max_per_socket"]
        return Delivered(messages, fewest, most, seen["latency_us"], seen["channel_latency_us"])


def told(stats: dict[str, Any]) -> str:
    """What is worth telling of loadgen's counters: those that are not zero."""
    return ", ".join(f"{name} {value}" for name, value in stats.items() if value and name != "event")


class Floor(Speaker):
    """The floor server: the same sockets, one send(2) a socket and message, and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__("floor", [program("floor")], folder / "floor.log")
        self._port = 0
        self._minted = itertools.count()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._port = int((await self.hear("listening"))["port"])
        return self

    def mint(self, count: int) -> list[str]:
        """URLs of the same shape and length as imserver's; the floor takes any token."""
        return [f"ws://127.0.0.1:{self._port}/ws?token={next(self._minted):032x}" for _ in range(count)]

    async def send(self, payload_bytes: int, messages: int, *, to_all: bool = True) -> dict[str, Any]:
        """Sends `messages` of `payload_bytes` to every socket, or each to one drawn at random; returns its count."""
        command = "send" if to_all else "one"
        return await self.ask(f"{command} {payload_bytes} {messages}", "sent", DELIVERY_SECONDS)
