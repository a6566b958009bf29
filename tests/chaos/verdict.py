# Judges a ledger: for every accepted message who must have received it, and what came that must not have come.
# Pure: it asks nobody. docs/guarantees.md says in words what is promised; here it is in code.

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.ledger import Client, Connection, DeviceBook, Ledger, Send
from tests.chaos.presence import judge_presence
from tests.chaos.rules import Rules, around, describe, name_of

__all__ = ["BY_REDIS", "COLUMNS", "Judge", "Verdict"]

COLUMNS = (
    *("lost", "out of order", "duplicates", "wrong receiver", "gaps", "receipts"),
    *("events", "event bus", "ghosts", "other"),
)
# What Redis itself lost after it had acknowledged it, and how envelope clients were told; counted apart.
BY_REDIS = (
    *("lost by Redis, client told", "lost by Redis, plain client", "receipts lost by Redis"),
    *("4002 after a loss", "recovered: false after a loss"),
)

# How long after its beginning a flood may still be on its way: as long as Redis may be away meanwhile.
FLOOD_SECONDS = 30.0


@dataclass
class Verdict:
    """Counts by column, and some examples of what is wrong."""

    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, column: str, example: str) -> None:
        """Count something wrong."""
        self.wrong[column] += 1
        if self.wrong[column] <= 5:
            self.examples.append(f"{column}: {example}")


class Judge:
    """Everything the contract says of messages and receipts, applied to one ledger."""

    def __init__(self, ledger: Ledger, lease: float, grace: float) -> None:
        self._ledger = ledger
        self._rules = Rules(ledger, lease, grace)
        self._accepted = [s for s in ledger.sends.values() if s.ended is not None]

    def verdict(self) -> Verdict:
        """Judge all columns."""
        v = Verdict()
        v.counts["accepted"] = len(self._accepted)
        for send in self._ledger.sends.values():
            if len(send.ids) > 1:
                v.fault("duplicates", f"message {send.uid} got several ids")
        by_client = self._by_client()
        for client in self._ledger.clients:
            self._deliveries(v, client, by_client[client.number])
            for book in client.devices:
                self._device(v, client, book)
            judge_presence(v.fault, self._rules, client)
        self._receipts(v)
        for text in self._ledger.broken_promises:
            v.fault("other", text)
        return v

    # Who must have it.

    def _by_client(self) -> dict[int, list[Send]]:
        found: dict[int, list[Send]] = defaultdict(list)
        for send in self._accepted:
            if send.chan is None:
                for number in send.receivers:
                    if number != send.sender or self._echo_due(send):
                        found[number].append(send)
            else:
                for number in self._rules.members[send.chan]:
                    if self._rules.certain_member(number, send):
                        found[number].append(send)
        return found

    def _echo_due(self, send: Send) -> bool:
        """A sender among its receivers gets it only if it holds more than one socket at that moment."""
        assert send.ended is not None
        books = self._ledger.clients[send.sender].devices
        return len(books) > 1 and all(self._rules.steady(b, send.began, send.ended) for b in books)

    # Messages.

    def _deliveries(self, v: Verdict, client: Client, sends: list[Send]) -> None:
        if client.gone is not None:
            return
        for send in sends:
            missing = [book for book in client.devices if send.uid not in book.arrived]
            v.counts["delivered"] += len(client.devices) - len(missing)
            if client.envelope:
                for book in missing:
                    self._envelope_missing(v, client, book, send)
            elif missing:
                self._plain_missing(v, client, missing, send)

    def _envelope_missing(self, v: Verdict, client: Client, book: DeviceBook, send: Send) -> None:
        assert send.ended is not None
        connections = book.connections
        if not connections or send.began < connections[0].opened:
            return
        told = any((c.opened > send.began and not c.recovered) or c.code == 4002 for c in connections)
        if told and self._rules.lost_near(send.began, send.ended):
            v.counts["lost by Redis, client told"] += 1
        else:
            v.fault("lost", f"{name_of(client, book)} never got {describe(send)}; {around(connections, send)}")

    def _plain_missing(self, v: Verdict, client: Client, missing: list[DeviceBook], send: Send) -> None:
        assert send.ended is not None
        rules = self._rules
        lost = rules.lost_near(send.began, send.ended)
        for book in missing:
            last = book.connections[-1] if book.connections else None
            if last is not None and last.closed is None and last.opened < send.began and last.frozen is None:
                if lost:
                    v.counts["lost by Redis, plain client"] += 1
                else:
                    v.fault("lost", f"{name_of(client, book)}, connected all along, never got {describe(send)}")
                return
        if len(missing) < len(client.devices) or not any(
            b.connections and b.connections[0].opened < send.began for b in missing
        ):
            return
        offs = rules.offs.get(client.number, [])
        if not rules.online_throughout(client.number, send.began, send.began):
            return
        at = bisect_left(offs, send.began - rules.slack)
        if at < len(offs) and offs[at] - send.ended < 2 * (rules.lease + rules.grace) + 10:
            v.counts["not delivered before the client went offline"] += 1
        elif rules.cut_near(missing, send):
            v.counts["plain: given to a socket that was cut"] += 1
        elif lost:
            v.counts["lost by Redis, plain client"] += 1
        else:
            seen = " | ".join(around(book.connections, send) for book in missing)
            v.fault("lost", f"{name_of(client, missing[0])} never got {describe(send)}; {seen}")

    def _device(self, v: Verdict, client: Client, book: DeviceBook) -> None:
        for uid in book.order:
            send = self._ledger.sends.get(uid)
            if send is None:
                v.fault("other", f"{name_of(client, book)} got a message that nobody sent: {uid}")
            else:
                self._receiver(v, client, book, send)
        if client.envelope or len(client.devices) == 1:
            self._order(v, client, book, book.order)
        for number in range(len(book.connections)):
            self._order(v, client, book, [uid for at, uid in book.all if at == number])
        for uid in book.other_ids:
            v.fault("duplicates", f"{name_of(client, book)} got {uid} under two ids")
        for uid in book.twice_on_one:
            v.fault("duplicates", f"{name_of(client, book)} got {uid} twice on one socket")
        for text in book.alien:
            v.fault("other", f"{name_of(client, book)}: {text}")
        for uid, at in book.repeats:
            v.counts["repeats, envelope" if client.envelope else "repeats, plain"] += 1
            if not client.envelope:
                self._plain_repeat(v, client, book, uid, at)
        for connection in book.connections:
            self._told(v, client, book, connection)

    def _told(self, v: Verdict, client: Client, book: DeviceBook, connection: Connection) -> None:
        """What a connection was told of a gap, and of itself: each needs a reason."""
        at = connection.closed or connection.opened
        # A primary that was replaced in good order lost nothing; but who was connected to the old one can't know that.
        reason = any(at > other for other in (*self._ledger.losses, *self._ledger.switches))
        if connection.since and not connection.recovered:
            if reason:
                v.counts["recovered: false after a loss"] += 1
            else:
                v.fault("gaps", f"{name_of(client, book)} was not recovered at {connection.opened:.3f}")
        if connection.code == 4002:
            if reason:
                v.counts["4002 after a loss"] += 1
            else:
                v.fault("gaps", f"{name_of(client, book)} was closed with 4002 at {at:.3f}")
        if connection.code == 4001:
            if connection.slow is not None:
                v.counts["4001 to those that did not read"] += 1
            elif any(began < at < began + FLOOD_SECONDS for began in client.floods):
                # What Redis held up comes at once, and may be more than a buffer takes before the client's turn comes.
                v.counts["4001 in a flood, to those that read"] += 1
            else:
                v.fault("other", f"{name_of(client, book)} was closed with 4001 at {at:.3f}, and had read all along")

    def _order(self, v: Verdict, client: Client, book: DeviceBook, uids: list[int]) -> None:
        """What was accepted before another was begun must come before it."""
        newest, newest_uid = 0.0, 0
        for uid in uids:
            send = self._ledger.sends.get(uid)
            if send is None:
                continue
            if send.ended is not None and send.ended < newest:
                v.fault("out of order", f"{name_of(client, book)} got {uid} after {newest_uid}")
            if send.began > newest:
                newest, newest_uid = send.began, uid

    def _receiver(self, v: Verdict, client: Client, book: DeviceBook, send: Send) -> None:
        """Whether this client was one of those that a message is for."""
        rules = self._rules
        if send.chan is None:
            if client.number not in send.receivers:
                v.fault("wrong receiver", f"{name_of(client, book)} got {describe(send)}")
            elif client.number == send.sender and rules.alone(client, send.began):
                v.fault("wrong receiver", f"{name_of(client, book)} has one socket and got its own {describe(send)}")
        elif not rules.possible_member(client.number, send, send.ended or book.arrived[send.uid]):
            known = rules.membership(client.number, send.chan)
            v.fault("wrong receiver", f"{name_of(client, book)} was no member: {describe(send)}; {known}")

    def _plain_repeat(self, v: Verdict, client: Client, book: DeviceBook, uid: int, at: float) -> None:
        """After a crash a plain client may see up to a second's messages again, and what Redis's absence adds to it."""
        if len(client.devices) > 1:
            # Which of them comes back is not known: it starts where the other one ended.
            return
        first = book.arrived[uid]
        ends = [c.frozen or c.closed for c in book.connections if c.opened <= first]
        if ends and ends[-1] is not None and ends[-1] - first > 1 + self._rules.slack + self._rules.outages(first, at):
            v.counts["repeats, plain, of more than a second"] += 1
            seen = around(book.connections, self._ledger.sends[uid])
            v.notes.append(f"{name_of(client, book)} got {uid} at {first:.3f} and {at:.3f}; {seen}")

    # Receipts.

    def _receipts(self, v: Verdict) -> None:
        for send in self._accepted:
            sender = self._ledger.clients[send.sender]
            if not send.receipt or sender.gone is not None:
                continue
            for book in sender.devices:
                if not book.connections or book.connections[0].opened > send.began:
                    continue
                for receiver in send.receivers:
                    self._receipt(v, sender, book, send, receiver)

    def _receipt(self, v: Verdict, sender: Client, book: DeviceBook, send: Send, receiver: int) -> None:
        assert send.ended is not None
        rules = self._rules
        key = (next(iter(send.ids)), receiver) if sender.envelope else (send.uid, None)
        got = book.receipts.get(key, [])
        v.counts["receipts"] += bool(got)
        who = f"{name_of(sender, book)}: receipt of {self._ledger.clients[receiver].client_id} for {describe(send)}"
        if not got:
            if not self._receipt_excused(v, sender, book, send):
                there = [around(b.connections, send) for b in self._ledger.clients[receiver].devices]
                v.fault("receipts", f"{who} is missing; {around(book.connections, send)}; receiver: {there}")
            return
        if len({r.status for r in got}) > 1 and not rules.lost_near(send.began, got[-1].at):
            v.fault("receipts", f"{who} came with both statuses")
            return
        books = self._ledger.clients[receiver].devices
        if got[0].status == "delivered":
            cut = not books[0].envelope and rules.cut_near(books, send)
            if not any(send.uid in b.arrived for b in books) and not cut:
                v.fault("receipts", f"{who} says delivered, and nobody got it")
        elif rules.online_throughout(
            receiver, send.began - rules.slack, got[0].at + rules.slack
        ) and not rules.lost_near(send.began, got[0].at):
            v.fault("receipts", f"{who} says offline, and it was online all along")

    def _receipt_excused(self, v: Verdict, sender: Client, book: DeviceBook, send: Send) -> bool:
        assert send.ended is not None
        rules = self._rules
        if rules.lost_near(send.began, send.ended + 15):
            v.counts["receipts lost by Redis"] += 1
            return True
        if sender.envelope:
            return False
        if not rules.online_throughout(sender.number, send.began, send.began):
            # It sent while offline: what comes then is for those who resume.
            return True
        horizon = send.ended + 2 * (rules.lease + rules.grace) + 10
        if any(send.began - rules.slack < off < horizon for off in rules.offs.get(sender.number, ())):
            return True
        if len(sender.devices) > 1:
            # What came while this device was away went to the other one.
            return not any(c.closed is None and c.opened < send.began for c in book.connections)
        return any(
            not c.orderly and c.closed and send.began - rules.slack < c.closed < horizon for c in book.connections
        )
