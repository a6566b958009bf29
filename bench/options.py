"""Sizes of a run: the full ones, and small ones that end within a minute.

Each can be set on the command line; run.py builds its arguments from these fields.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How large and how often.

    Args:
        rounds: paired rounds of each figure, ours and floor in turn (the memory works take one).
        modes: wire modes whose memory is measured.
        rss_sizes: connections at which memory is read, rising.
        settle_seconds: how long connections stay quiet before memory is read.
        sockets: members of the channel that a channel message goes to.
        payloads: payload sizes in bytes.
        repeats: channel messages a round, one after another.
        burst: channel messages queued at once.
        members: members of a channel on several servers, while others get 1:1 messages.
        handshakes: sockets opened a round; all rounds' sockets stay open.
        clients: clients connected for 1:1 messages.
        rate: 1:1 messages a second.
        seconds: how long 1:1 messages are sent in a round.
        single: 1:1 messages sent one by one to count the commands each takes.
    """

    rounds: int = 5
    modes: tuple[str, ...] = ("plain", "envelope")
    rss_sizes: tuple[int, ...] = (1000, 5000, 15000)
    settle_seconds: float = 5.0
    sockets: int = 10000
    payloads: tuple[int, ...] = (128, 4096)
    repeats: int = 3
    burst: int = 20
    members: int = 50000
    handshakes: int = 3000
    clients: int = 2000
    rate: int = 1000
    seconds: float = 5.0
    single: int = 200


FULL = Options()
QUICK = Options(
    rounds=3,
    rss_sizes=(500, 1000),
    settle_seconds=0.5,
    sockets=500,
    repeats=2,
    members=2000,
    handshakes=300,
    clients=200,
    rate=500,
    seconds=1,
    single=50,
)
