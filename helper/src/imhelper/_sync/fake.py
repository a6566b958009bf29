"""FakeImHelper: the real helper over a memory instead of Redis, so that arguments, results and errors are the same.
Generated from _async/fake.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .._backend._work_blocking import Finished, finished, pause
from .._backend.blocking import Dedicated, Link
from .._backend.common import Arg, Call
from .._checks import check_timeout
from .._memory import Memory, Sent
from ..core.ids import check_client, check_metadata, check_prefix
from ..core.redis_url import Credential, RedisConfig, parse_redis_url
from ..core.scripts import Script
from ..errors import ImError
from .helper import ImHelper

__all__ = ["FakeImHelper"]

POLL_SECONDS = 0.005


class FakeImHelper(ImHelper):
    """An in-memory twin of ImHelper for tests of code that uses it: no Redis, no server.

    Clients come online with `connect` and go offline with `disconnect`; what was sent is in `sent`. Everything else
    is as with the real one, `event_bus`, hooks and errors included; delivery and receipts are not played.

    Args:
        redis_url, prefix, token_ttl, timeout and the login: as for ImHelper, so that code that makes its own helper can
            make this one; nothing connects.
        servers: names of the servers there are; with none, `prev_connect_server` raises NoServerError.
    """

    def __init__(
        self,
        redis_url: str = "redis://fake.invalid",
        *,
        prefix: str = "im",
        token_ttl: float = 10,
        timeout: float = 5,
        username: Credential = None,
        password: Credential = None,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        servers: Sequence[str] = ("fake-0",),
    ) -> None:
        self._memory = Memory(servers)
        config = parse_redis_url(
            redis_url,
            username=username,
            password=password,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
        )
        self._set_up(_FakeLink(self._memory, config, check_prefix(prefix), check_timeout(timeout)), token_ttl)

    @property
    def sent(self) -> list[Sent]:
        """Every message accepted so far, oldest first. Clear it as any list."""
        return self._memory.sent

    @property
    def available(self) -> bool:
        """Set to False to make every call fail with RedisUnavailableError."""
        return self._memory.available

    @available.setter
    def available(self, value: bool) -> None:
        self._memory.available = value

    def connect(self, client_id: str, metadata: str = "") -> Finished:
        """Open a socket of a client (once more: one socket more). In asyncio code it may be awaited or not."""
        self._memory.connect(check_client(client_id), check_metadata(metadata))
        return finished()


class _FakeLink(Link):
    """Answers from the memory."""

    def __init__(self, memory: Memory, config: RedisConfig, prefix: str, timeout: float) -> None:
        super().__init__(config, prefix=prefix, timeout=timeout)
        self._memory = memory

    def eval(self, script: Script, group: int | None, *args: Arg) -> Any:
        return self._memory.answer(Call(group, args, script))

    def command(self, group: int | None, *args: Arg) -> Any:
        return self._memory.answer(Call(group, args))

    def gather(self, calls: Sequence[Call]) -> list[Any]:
        replies: list[Any] = []
        for call in calls:
            try:
                replies.append(self._memory.answer(call))
            except ImError as error:
                replies.append(error)
        return replies

    def dedicated(self, group: int | None, *, timeout: float | None = None) -> Dedicated:
        return _FakeDedicated(self._memory)


class _FakeDedicated(Dedicated):
    """A blocking read that looks again and again."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def call(self, *args: Arg, timeout: float | None = None) -> Any:
        until = time.monotonic() + int(args[args.index("BLOCK") + 1]) / 1000
        while True:
            reply = self._memory.answer(Call(None, args))
            if reply is not None or time.monotonic() >= until:
                return reply
            pause(POLL_SECONDS)

    def close(self) -> None:
        """Nothing is open."""
