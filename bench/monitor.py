"""Which commands which process sends to Redis: MONITOR's lines, told apart by the connection they came over.

Commands that a script calls inside Redis cost no round trip and are not counted.
"""

import asyncio
import re
from collections import Counter
from types import TracebackType
from typing import Self

from bench.errors import BenchError
from bench.procs import tcp_peers_of

LINE = re.compile(rb'\+[\d.]+ \[\d+ (?P<address>[^\]]+)\] "(?P<command>[^"]*)"')
ANSWER_SECONDS = 5


class Monitor:
    """Counts commands by (address, command name) while it is entered.

    Args:
        port: of a Redis on 127.0.0.1 without a password.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._seen: Counter[tuple[str, str]] = Counter()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"MONITOR\r\n")
        answer = await asyncio.wait_for(self._reader.readline(), ANSWER_SECONDS)
        if answer != b"+OK\r\n":
            raise BenchError(f"Redis refuses MONITOR: {answer.decode(errors='replace').strip()}")
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()

    async def _count(self) -> None:
        while line := await self._reader.readline():
            if match := LINE.match(line):
                self._seen[match["address"].decode(), match["command"].decode().upper()] += 1

    def of(self, pid: int) -> Counter[str]:
        """Commands so far of the connections that the process holds now, by name.

        Raises:
            BenchError: Redis has ended the MONITOR connection, so that the counts are not whole.
        """
        if self._task.done():
            raise BenchError("Redis ended MONITOR in the middle of a count")
        addresses = tcp_peers_of(pid, self._port)
        counts: Counter[str] = Counter()
        for (address, command), count in self._seen.items():
            if address in addresses:
                counts[command] += count
        return counts
