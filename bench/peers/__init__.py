"""Servers of other makes that bench/ measures beside imserver, in the same run and in turns with it.

A peer that can't run on this machine is left out with a reason; that is never an error.
"""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from bench.peers.base import Peer
from bench.peers.centrifugo.build import version as centrifugo_version
from bench.peers.centrifugo.peer import Centrifugo, CentrifugoRedis
from bench.peers.socketio.peer import SocketIO, versions
from bench.peers.websockets import Websockets

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Centrifugo, CentrifugoRedis, Websockets, SocketIO)}


def prepare(names: Iterable[str], *, build: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """Those of the peers that can run here, and why not for the others; installs what is missing if `build`."""
    able: list[str] = []
    left_out: dict[str, str] = {}
    for name in names:
        reason = PEERS[name].prepare(build=build)
        if reason is None:
            able.append(name)
        else:
            left_out[name] = reason
    return tuple(able), left_out


async def enter(
    stack: AsyncExitStack, folder: Path, names: Iterable[str], *, nodes: int = 1, presence: bool = False
) -> list[Peer]:
    """Starts the peers; those that can't have `nodes` nodes are not among them."""
    able = [PEERS[name] for name in names if nodes == 1 or PEERS[name].clusters]
    return [
        await stack.enter_async_context(peer(folder, place, nodes, presence=presence))
        for place, peer in enumerate(able)
    ]


def peer_versions() -> dict[str, str]:
    """The versions of what does not come with imserver's own requirements."""
    return {"centrifugo": centrifugo_version()} | versions()
