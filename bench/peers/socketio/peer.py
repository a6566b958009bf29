"""socket.io 4 on Node with the Redis streams adapter and connection state recovery, its form of a resume.

1:1 messages are emitted by one more socket.io process, which holds no clients and stands where our helper does.
"""

import json
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

from bench.cluster import free_ports
from bench.peers.base import Peer, Sent, order_talk, user
from bench.procs import Speaker
from bench.valkey import Valkey

HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules" / "socket.io" / "package.json"
INSTALL_SECONDS = 300


def versions() -> dict[str, str]:
    """The packages that package.json asks for, which it does to the last digit."""
    wanted: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
    return {name: wanted[name] for name in ("socket.io", "@socket.io/redis-streams-adapter")}


class SocketIO(Peer):
    """Node processes that share a Valkey; everybody is in one room and in a room of their own."""

    name = "socketio"
    mode = "socketio"
    clusters = True

    @classmethod
    def prepare(cls, *, build: bool) -> str | None:
        """Needs Node; its modules are installed from the lock file."""
        if shutil.which("node") is None:
            return "there is no node"
        if INSTALLED.exists():
            return None
        if not build:
            return "its modules are not installed, and this run builds nothing"
        npm = shutil.which("npm")
        if npm is None:
            return "its modules are not installed, and there is no npm"
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(  # noqa: S603
                command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"npm ci did not end within {INSTALL_SECONDS} s"
        return None if done.returncode == 0 else f"npm ci failed: {done.stderr.strip()[-300:]}"

    async def start(self, stack: AsyncExitStack) -> None:
        """Starts the Valkey, the servers and, for several servers, the process that emits."""
        valkey = await stack.enter_async_context(Valkey(self.folder, free_ports(1)[0], "socketio-valkey"))
        self.redis = valkey
        self._ports = []
        processes = []
        for index in range(self.nodes + (self.nodes > 1)):
            command: list[str | Path] = ["node", HERE / "server.js", valkey.url]
            name = f"socketio-{index}"
            process = await stack.enter_async_context(Speaker(name, command, self.folder / f"{name}.log"))
            self._ports.append(int((await process.hear("listening"))["port"]))
            processes.append(process)
        self.servers = processes[: self.nodes]
        self.senders = processes[self.nodes :]
        self._mouth = processes[-1]

    def mint(self, first: int, count: int) -> list[str]:
        """The URL of Engine.IO's WebSocket; the user's name goes with the CONNECT packet."""
        return [
            f"ws://127.0.0.1:{self._ports[index % self.nodes]}/socket.io/?EIO=4&transport=websocket"
            f' 40{{"user":"{user(index)}"}}'
            for index in range(first, first + count)
        ]

    async def shout(self, size: int, count: int) -> None:
        """`io.to(room).emit`, `count` times in a row."""
        await self._mouth.tell(json.dumps({"op": "shout", "size": size, "count": count}))

    async def talk(self, size: int, count: int, rate: float, users: int, patience: float) -> Sent:
        """`io.to(user).emit` in the process without clients."""
        return await order_talk(self._mouth, size, count, rate, users, patience)
