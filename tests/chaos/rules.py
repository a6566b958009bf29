# Questions to a ledger that the judges share: who was a member, online or connected when.
# Pure. Where a fault or a lost answer leaves it open, "certain" and "possible" differ.

from collections import defaultdict

from tests.chaos.ledger import Client, Connection, DeviceBook, Ledger, Send

__all__ = ["Rules", "around", "describe", "name_of"]

# How far apart two readings of one thing may be, in seconds: a busy machine delays callbacks.
SLACK = 1.0
# Redis's clock and this process's are the same machine's.
CLOCK = 0.05
# Around a loss of Redis's: what is accepted so shortly before may be gone, what comes so shortly after may not settle.
BEFORE_LOSS = 15.0
AFTER_LOSS = 8.0


class Rules:
    """A ledger with its indexes.

    Args:
        ledger: of a run that has settled.
        lease, grace: the servers' settings, in seconds.
    """

    def __init__(self, ledger: Ledger, lease: float, grace: float) -> None:
        self.ledger = ledger
        self.lease = lease
        self.grace = grace
        # A runner that was starved saw everything so much later than it happened.
        self.slack = SLACK + max(ledger.stalls, default=0.0)
        self.offs = {n: [at for at, kind in events if kind == "off"] for n, events in ledger.events.items()}
        self.members: dict[str, set[int]] = defaultdict(set)
        for number, chan in ledger.joins:
            self.members[chan].add(number)

    def certain_member(self, number: int, send: Send) -> bool:
        """Whether the client was a member during the whole of a channel send."""
        assert send.ended is not None and send.chan is not None
        leaves = self.ledger.leaves.get((number, send.chan), ())
        for join in self.ledger.joins[number, send.chan]:
            if not join.certain or join.ended > send.began:
                continue
            if any(join.began - BEFORE_LOSS < at < send.ended + AFTER_LOSS for at in self.ledger.losses):
                continue
            if any(leave.ended > join.began and leave.began < send.ended for leave in leaves):
                continue
            if any(join.began - CLOCK < off < send.ended + CLOCK for off in self.offs.get(number, ())):
                continue
            return True
        return False

    def possible_member(self, number: int, send: Send, until: float) -> bool:
        """Whether the client may have been a member at some moment of a channel send that was over at `until`."""
        assert send.chan is not None
        leaves = self.ledger.leaves.get((number, send.chan), ())
        for join in self.ledger.joins.get((number, send.chan), ()):
            if join.began > until or (not join.certain and send.began > join.ended):
                continue
            left = any(
                leave.began > join.ended and leave.ended < send.began and not self.lost_near(leave.began, leave.ended)
                for leave in leaves
            )
            gone = any(join.ended + CLOCK < off < send.began - CLOCK for off in self.offs.get(number, ()))
            if not left and not gone:
                return True
        return False

    def membership(self, number: int, chan: str) -> str:
        """What is known of it, for a reader."""
        joins = [f"joined {c.began:.3f}-{c.ended:.3f}" for c in self.ledger.joins.get((number, chan), ())]
        leaves = [f"left {c.began:.3f}-{c.ended:.3f}" for c in self.ledger.leaves.get((number, chan), ())]
        return ", ".join([*joins, *leaves, *(f"off {at:.3f}" for at in self.offs.get(number, ()))])

    def lost_near(self, began: float, ended: float) -> bool:
        """Whether Redis lost writes around a span."""
        return any(began < at + AFTER_LOSS and ended > at - BEFORE_LOSS for at in self.ledger.losses)

    def online_throughout(self, number: int, began: float, ended: float) -> bool:
        """Whether the client was online during the whole of a span, as the events say."""
        online_since = None
        for at, kind in self.ledger.events.get(number, ()):
            if kind == "on":
                online_since = at if online_since is None else online_since
            else:
                if online_since is not None and online_since <= began and at >= ended:
                    return True
                online_since = None
        return online_since is not None and online_since <= began

    def outages(self, began: float, ended: float) -> float:
        """Seconds of faults of Redis between two times: nothing can be recorded meanwhile, nor leases be judged."""
        total = 0.0
        for fault in self.ledger.faults:
            if fault.began < ended and fault.ended > began and _away(fault.kind):
                total += min(ended, fault.ended) - max(began, fault.began) + self.lease
        return total

    def freezes(self, began: float, ended: float) -> float:
        """Seconds of frozen servers between two times: what is told to them meanwhile, they learn when they wake."""
        return sum(
            min(ended, fault.ended) - max(began, fault.began)
            for fault in self.ledger.faults
            if fault.kind in ("freeze", "stutter") and fault.began < ended and fault.ended > began
        )

    def steady(self, book: DeviceBook, began: float, ended: float) -> bool:
        """Whether a device was connected, undisturbed, from well before a span until well after it."""
        return any(
            c.opened < began - 2 * self.slack
            and (c.closed or ended + 99) > ended + self.slack
            and c.frozen is None
            and c.slow is None
            for c in book.connections
        )

    def alone(self, client: Client, began: float) -> bool:
        """Whether the client surely had one socket on record at most: it has one device, and that was at rest."""
        rest = began - self.lease - self.grace - 10
        return len(client.devices) == 1 and not any(
            rest < c.opened < began or rest < (c.closed or rest) < began + self.slack
            for c in client.devices[0].connections
        )

    def cut_near(self, books: list[DeviceBook], send: Send) -> bool:
        """Whether the message may have been written to a socket whose client had gone without a word: as it came, or
        when that socket was given what its client had missed. Never if a connection had time enough to bring it."""
        assert send.ended is not None
        connections = [c for book in books for c in book.connections]
        if any(self._had_time(c, send.began, send.ended) for c in connections):
            return False
        given_up = any(at > send.began - self.slack for book in books for at in book.given_up)
        return given_up or any(self._cut_soon(c, send.began, send.ended) for c in connections)

    def _had_time(self, connection: Connection, began: float, ended: float) -> bool:
        if connection.frozen is not None or connection.slow is not None or connection.opened > began - 2 * self.slack:
            return False
        closed = connection.closed
        return closed is None or closed > ended + self.slack + self.outages(began, closed)

    def _cut_soon(self, connection: Connection, began: float, ended: float) -> bool:
        if connection.orderly or connection.closed is None:
            return False
        doubt = connection.slow or connection.frozen or connection.closed
        doubt -= self.slack + self.outages(began, connection.closed)
        return doubt < max(ended, connection.opened) and began < connection.closed + self.slack


def _away(kind: str) -> bool:
    """Whether Redis does not do all that it is asked during such a fault."""
    return kind.startswith(("redis", "cluster")) or kind in ("pause", "maxmemory", "reshard")


def name_of(client: Client, book: DeviceBook) -> str:
    """A device, for a reader."""
    mode = "envelope" if client.envelope else "plain"
    return f"{mode} client {client.number} {client.client_id!r} device {client.devices.index(book)}"


def describe(send: Send) -> str:
    """A message, for a reader."""
    where = f"to {send.chan!r}" if send.chan is not None else f"from {send.sender}"
    return f"message {send.uid} {where} accepted {send.began:.3f}-{send.ended or 0:.3f} ({send.tries} tries)"


def around(connections: list[Connection], send: Send) -> str:
    """The connections near a message, for a reader."""
    parts = []
    for c in connections:
        closed = c.closed or float("inf")
        if c.opened - 30 < send.began < closed + 30:
            how = f"{c.code}{'' if c.orderly else ' cut'}{f' frozen {c.frozen:.3f}' if c.frozen else ''}"
            parts.append(f"[{c.opened:.3f}-{closed:.3f} {how} recovered={c.recovered} {c.server[-9:-3]}]")
    return " ".join(parts)
