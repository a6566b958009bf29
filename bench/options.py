"""Sizes of a run: the full ones, and small ones that end within a minute.

Each can be set on the command line; run.py builds its arguments from these fields.
"""

from dataclasses import dataclass

from bench.peers import PEERS

GROWS = ("clients", "channels", "members", "slots", "servers", "history")


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
        addressees: clients, connected to two servers, that 1:1 messages are sent to.
        rates: 1:1 messages a second to those, one rate after another.
        peers: servers of other makes to measure beside ours, or "none".
        build: "yes" installs a peer that is not there yet (minutes, once); "no" leaves it out.
        connections: quiet connections over four servers.
        returning: clients whose server is killed.
        storm_rate: 1:1 messages a second to others, before and while those come back.
        sends: sends a round of the helper's own rate.
        in_flight: sends under way at once, one after another.
        receivers: receivers of one send.
        grow: what grows.
        known: clients that Redis knows of, the fewer and the more.
        channels: channels that Redis knows of, the fewer and the more.
        grown_members: members of the channel, the fewer and the more.
        grown_slots: slots of the table, the fewer and the more.
        grown_servers: servers, the fewer and the more.
        history: entries that each slot's log retains, the fewer and the more.
        calls: calls of each question a round.
        churn_rounds: how often all sockets are opened and closed.
        churn: sockets opened and closed each time.
        crowd: clients connected at once.
        crowd_seconds: how long they are sent to.
        crowd_rate: 1:1 messages a second to them.
        shout_seconds: between two messages to all of them.
        ping_seconds: between two pings to each of them.
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
    addressees: int = 10000
    rates: tuple[int, ...] = (1000, 5000, 10000)
    peers: tuple[str, ...] = tuple(PEERS)
    build: str = "yes"
    connections: int = 50000
    returning: int = 10000
    storm_rate: int = 200
    sends: int = 10000
    in_flight: tuple[int, ...] = (64, 256, 1000)
    receivers: int = 1000
    grow: tuple[str, ...] = GROWS
    known: tuple[int, ...] = (1000, 100000)
    channels: tuple[int, ...] = (100, 10000)
    grown_members: tuple[int, ...] = (100, 10000)
    grown_slots: tuple[int, ...] = (16, 1024)
    grown_servers: tuple[int, ...] = (1, 16)
    history: tuple[int, ...] = (10, 10000)
    calls: int = 100
    churn_rounds: int = 20
    churn: int = 10000
    crowd: int = 100000
    crowd_seconds: float = 60.0
    crowd_rate: int = 500
    shout_seconds: float = 5.0
    ping_seconds: float = 25.0


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
    addressees=200,
    rates=(500,),
    build="no",
    connections=2000,
    returning=500,
    sends=2000,
    in_flight=(64, 256),
    receivers=100,
    known=(200, 5000),
    channels=(20, 1000),
    grown_members=(20, 500),
    grown_slots=(16, 256),
    grown_servers=(1, 4),
    history=(10, 2000),
    calls=20,
    churn_rounds=5,
    churn=500,
    crowd=3000,
    crowd_seconds=5,
    shout_seconds=1,
    ping_seconds=2,
)
