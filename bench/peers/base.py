"""What a peer of imserver is to the works: processes to charge, URLs to open, messages to have sent.

A peer runs as its own users would run it; what it is set to, and why that is fair, stands in docs/performance.md.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bench.natives import DELIVERY_SECONDS, Loadgen
from bench.procs import Child, Speaker

# Peers' load generators leave from 127.0.0.31 onwards, eight addresses each; ours and the floor's keep to 1 and 101.
FIRST_SOURCE = 31


@dataclass(frozen=True)
class Sent:
    """How a round of sending went: messages sent, and the seconds that it took."""

    messages: int
    seconds: float


def user(index: int) -> str:
    """The name of the `index`-th user; senders draw theirs among the first so many."""
    return f"peer-{index}"


class Peer:
    """A server of another make with its load generator, on loopback ports that the OS picks.

    Args:
        folder: where its files and logs go; may be shared with others.
        place: 0, 1, 2, … among the peers that run at the same time.
        nodes: how many servers hold clients; above 1 only where `clusters` is true.
        presence: whether a handshake records that its user is there, where the peer can.
    """

    name: ClassVar[str]
    mode: ClassVar[str]
    clusters: ClassVar[bool] = False

    def __init__(self, folder: Path, place: int = 0, nodes: int = 1, *, presence: bool = False) -> None:
        self.folder = folder
        self.nodes = nodes
        self.presence = presence
        self.servers: Sequence[Child] = ()
        self.senders: Sequence[Child] = ()
        self.redis: Child | None = None
        self.loadgen = Loadgen(folder, f"{self.name}-loadgen", FIRST_SOURCE + 8 * place)
        self._stack = AsyncExitStack()

    @classmethod
    @abstractmethod
    def prepare(cls, *, build: bool) -> str | None:
        """Looks whether it can run here, and if need be installs it, if `build`; returns why not, or None."""

    @abstractmethod
    async def start(self, stack: AsyncExitStack) -> None:
        """Enters its processes on the stack, sets `servers`, `senders` and `redis`, returns once all of them serve."""

    @abstractmethod
    def mint(self, first: int, count: int) -> list[str]:
        """Lines for the load generator that connect `user(first)` and so on, spread over the servers."""

    @abstractmethod
    async def shout(self, size: int, count: int) -> None:
        """Queues `count` messages of `size` bytes to everybody who is connected."""

    async def talk(self, size: int, count: int, rate: float, users: int, patience: float) -> Sent:
        """Sends 1:1 messages to users drawn among the first `users`, `rate` a second, for at most `patience` s."""
        raise NotImplementedError(f"{self.name} sends no 1:1 messages over several servers")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.start(stack)
            # Entered last, so that its sockets are gone before a server is asked to stop and would drain them.
            await stack.enter_async_context(self.loadgen)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def pids(self) -> list[int]:
        """Processes that hold clients: the server's CPU and memory are theirs."""
        return [server.pid for server in self.servers]


async def order_talk(sender: Speaker, size: int, count: int, rate: float, users: int, patience: float) -> Sent:
    """Has a sender process send as `Peer.talk` says; it takes JSON lines, as bench.sender does."""
    order: dict[str, Any] = {"op": "talk", "size": size, "count": count, "rate": rate}
    done = await sender.ask(
        json.dumps(order | {"users": users, "patience": patience}), "sent", patience + DELIVERY_SECONDS
    )
    return Sent(done["sent"], done["seconds"])
