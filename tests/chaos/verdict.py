# Judges a ledger: for every accepted message who must have received it, and what came that must not have come.
# Pure: it asks nobody. docs/guarantees.md says in words what is promised; here it is in code.

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.ledger import Client, Connection, DeviceBook, Ledger, Send

__all__ = ["Judge", "Verdict"]

# How far apart two clocks' readings of one thing may be, in seconds: a busy machine delays callbacks.
SLACK = 1.0


@dataclass
class Verdict:
    """Counts by column, and some examples of what is wrong."""

    wrong: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: list[str] = field(default_factory=list)

    def fault(self, column: str, example: str) -> None:
        """Count something wrong."""
        self.wrong[column] += 1
        if self.wrong[column] <= 5:
            self.examples.append(f"{column}: {example}")


class Judge:
    """Everything the contract says, applied to one ledger.

    Args:
        ledger: of a run that has settled.
        lease, grace: the servers' settings, in seconds.
        loss: times at which Redis is known to have lost acknowledged writes.
    """

    def __init__(self, ledger: Ledger, lease: float, grace: float, loss: list[float]) -> None:
        self._ledger = ledger
        self._lease = lease
        self._grace = grace
        self._loss = loss
        self._offs = {number: [at for at, kind in events if kind == "off"] for number, events in ledger.events.items()}
        self._members: dict[str, set[int]] = defaultdict(set)
        for number, chan in ledger.joins:
            self._members[chan].add(number)
        self._accepted = [s for s in ledger.sends.values() if s.ended is not None]

    def verdict(self) -> Verdict:
        """Judge all columns."""
        v = Verdict()
        v.wrong.update(dict.fromkeys(COLUMNS, 0))
        v.counts["accepted"] = len(self._accepted)
        for send in self._ledger.sends.values():
            if len(send.ids) > 1:
                v.fault("duplicates", f"message {send.uid} got several ids")
        by_client = self._by_client()
        for client in self._ledger.clients:
            self._deliveries(v, client, by_client[client.number])
            for book in client.devices:
                self._device(v, client, book)
            self._events(v, client)
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
                    found[number].append(send)
            else:
                for number in self._members[send.chan]:
                    if self._certain(number, send):
                        found[number].append(send)
        return found

    def _certain(self, number: int, send: Send) -> bool:
        """Whether the client was a member during the whole of a channel send."""
        assert send.ended is not None and send.chan is not None
        leaves = self._ledger.leaves.get((number, send.chan), ())
        for join in self._ledger.joins[number, send.chan]:
            if join.ended > send.began or self._lost_near(join.began, join.ended):
                continue
            if any(leave.ended > join.began and leave.began < send.ended for leave in leaves):
                continue
            if any(join.began - 0.05 < off < send.ended + 0.05 for off in self._offs.get(number, ())):
                continue
            return True
        return False

    def _possible(self, number: int, send: Send, until: float) -> bool:
        """Whether the client may have been a member at some moment of a channel send."""
        assert send.chan is not None
        leaves = self._ledger.leaves.get((number, send.chan), ())
        for join in self._ledger.joins.get((number, send.chan), ()):
            if join.began > until:
                continue
            left = any(leave.began > join.ended and leave.ended < send.began for leave in leaves)
            gone = any(join.ended + 0.05 < off < send.began - 0.05 for off in self._offs.get(number, ()))
            if not left and not gone:
                return True
        return False

    def _lost_near(self, began: float, ended: float) -> bool:
        return any(began - SLACK < at + 5 and ended + 3 > at for at in self._loss)

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
        told = any(c.since and not c.recovered and c.opened > send.began for c in connections)
        if told and self._lost_near(send.began, send.ended):
            v.counts["lost by Redis, client told"] += 1
        else:
            v.fault("lost", f"{_name(client, book)} never got {_describe(send)}; {_around(connections, send)}")

    def _plain_missing(self, v: Verdict, client: Client, missing: list[DeviceBook], send: Send) -> None:
        assert send.ended is not None
        for book in missing:
            last = book.connections[-1] if book.connections else None
            if last is not None and last.closed is None and last.opened < send.began and last.frozen is None:
                v.fault("lost", f"{_name(client, book)}, connected all along, never got {_describe(send)}")
        if len(missing) < len(client.devices) or not any(
            b.connections and b.connections[0].opened < send.began for b in missing
        ):
            return
        offs = self._offs.get(client.number, [])
        if not self._online_at(client.number, send.began - SLACK, send.ended):
            return
        at = bisect_left(offs, send.began - SLACK)
        if at < len(offs) and offs[at] - send.ended < 2 * (self._lease + self._grace) + 10:
            v.counts["not delivered before the client went offline"] += 1
        elif any(_cut_near(c, send) for b in missing for c in b.connections):
            v.counts["plain: given to a socket that was cut"] += 1
        elif self._lost_near(send.began, send.ended):
            v.counts["lost by Redis, plain client"] += 1
        else:
            book = missing[0]
            v.fault("lost", f"{_name(client, book)} never got {_describe(send)}; {_around(book.connections, send)}")

    def _device(self, v: Verdict, client: Client, book: DeviceBook) -> None:
        newest, newest_uid = 0.0, 0
        for uid in book.order:
            send = self._ledger.sends.get(uid)
            if send is None:
                v.fault("other", f"{_name(client, book)} got a message that nobody sent: {uid}")
                continue
            if send.ended is not None and send.ended < newest:
                v.fault("out of order", f"{_name(client, book)} got {uid} after {newest_uid}")
            if send.began > newest:
                newest, newest_uid = send.began, uid
            if send.chan is None:
                if client.number not in send.receivers:
                    v.fault("wrong receiver", f"{_name(client, book)} got {_describe(send)}")
            elif not self._possible(client.number, send, book.arrived[uid]) and not self._lost_near(
                send.began, send.began
            ):
                v.fault("wrong receiver", f"{_name(client, book)} was no member: {_describe(send)}")
        for uid in book.other_ids:
            v.fault("duplicates", f"{_name(client, book)} got {uid} under two ids")
        for uid in book.twice_on_one:
            v.fault("duplicates", f"{_name(client, book)} got {uid} twice on one socket")
        for text in book.alien:
            v.fault("other", f"{_name(client, book)}: {text}")
        for uid, at in book.repeats:
            v.counts["repeats, envelope" if client.envelope else "repeats, plain"] += 1
            if not client.envelope:
                self._plain_repeat(v, client, book, uid, at)
        for connection in book.connections:
            if connection.since and not connection.recovered:
                if any(connection.opened > at for at in self._loss):
                    v.counts["recovered: false after a loss"] += 1
                else:
                    v.fault("gaps", f"{_name(client, book)} was not recovered at {connection.opened:.3f}")
            if connection.code == 4002 and not any((connection.closed or 0) > at for at in self._loss):
                v.fault("gaps", f"{_name(client, book)} was closed with 4002 at {connection.closed or 0:.3f}")

    def _plain_repeat(self, v: Verdict, client: Client, book: DeviceBook, uid: int, at: float) -> None:
        """After a crash a plain client may see up to a second's messages again."""
        send = self._ledger.sends.get(uid)
        ends = [c.frozen or c.closed for c in book.connections if c.closed is not None and c.closed < at + SLACK]
        if send is None or send.ended is None or not ends or ends[-1] is None:
            return
        if ends[-1] - send.ended > 2 + SLACK and ends[-1] - book.arrived[uid] > 2 + SLACK:
            v.counts["repeats, plain, of more than two seconds"] += 1

    # Events.

    def _events(self, v: Verdict, client: Client) -> None:
        events = self._ledger.events.get(client.number, [])
        expected = "on"
        for at, kind in events:
            if kind != expected and not self._lost_near(at, at):
                v.fault("events", f"{client.client_id}: {kind} at {at:.3f} where {expected} was due")
            expected = "off" if kind == "on" else "on"
        spans = sorted(
            ((c.opened, c.frozen or c.closed or float("inf")) for b in client.devices for c in b.connections)
        )
        for off in self._offs.get(client.number, ()):
            for opened, end in spans:
                if opened < off - SLACK and off < end + self._grace - SLACK and not self._lost_near(off, off):
                    v.fault("events", f"{client.client_id}: off at {off:.3f}, connected {opened:.3f} to {end:.3f}")
        if client.devices and client.gone is None and spans and events and events[-1][1] != "on":
            if spans[-1][1] == float("inf"):
                v.fault("events", f"{client.client_id}: connected, but the last event is off")
        if spans and not events and not self._loss:
            v.fault("events", f"{client.client_id}: connected and no event")
        self._gaps_have_events(v, client, spans)

    def _gaps_have_events(self, v: Verdict, client: Client, spans: list[tuple[float, float]]) -> None:
        bound = self._lease + self._grace + 2 + 2 * SLACK
        covered = 0.0
        for opened, end in spans:
            if covered and opened - covered > bound + self._outages(covered, opened):
                if not any(covered < off < opened + SLACK for off in self._offs.get(client.number, ())):
                    v.fault("events", f"{client.client_id}: away from {covered:.3f} to {opened:.3f} and no off")
            covered = max(covered, end)

    def _outages(self, began: float, ended: float) -> float:
        """Seconds of faults of Redis between two times: presence can't change meanwhile, nor leases be judged."""
        total = 0.0
        for fault in self._ledger.faults:
            if fault.kind.startswith("redis") or fault.kind in ("pause", "failover"):
                total += max(0.0, min(ended, fault.ended) - max(began, fault.began)) + self._lease
        return total

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
        key = (next(iter(send.ids)), receiver) if sender.envelope else (send.uid, None)
        got = book.receipts.get(key, [])
        v.counts["receipts"] += bool(got)
        who = f"{_name(sender, book)}: receipt of {self._ledger.clients[receiver].client_id} for {_describe(send)}"
        if not got:
            if not self._receipt_excused(v, sender, book, send):
                there = [_around(b.connections, send) for b in self._ledger.clients[receiver].devices]
                v.fault("receipts", f"{who} is missing; {_around(book.connections, send)}; receiver: {there}")
            return
        if len({r.status for r in got}) > 1:
            v.fault("receipts", f"{who} came with both statuses")
            return
        books = self._ledger.clients[receiver].devices
        if got[0].status == "delivered":
            if not any(send.uid in b.arrived for b in books) and not any(
                _cut_near(c, send) for b in books for c in b.connections if not b.envelope
            ):
                v.fault("receipts", f"{who} says delivered, and nobody got it")
        elif self._online_throughout(receiver, send.began - SLACK, got[0].at + SLACK):
            if not self._lost_near(send.began, got[0].at):
                v.fault("receipts", f"{who} says offline, and it was online all along")

    def _receipt_excused(self, v: Verdict, sender: Client, book: DeviceBook, send: Send) -> bool:
        assert send.ended is not None
        if self._lost_near(send.began, send.ended + 15):
            v.counts["receipts lost by Redis"] += 1
            return True
        if sender.envelope:
            return False
        horizon = send.ended + 2 * (self._lease + self._grace) + 10
        if any(send.began - SLACK < off < horizon for off in self._offs.get(sender.number, ())):
            return True
        if len(sender.devices) > 1:
            # What came while this device was away went to the other one.
            return not any(c.closed is None and c.opened < send.began for c in book.connections)
        return any(not c.orderly and c.closed and send.began - SLACK < c.closed < horizon for c in book.connections)

    def _online_at(self, number: int, began: float, ended: float) -> bool:
        """Whether the client was online at any moment of a span."""
        online = False
        for at, kind in self._ledger.events.get(number, ()):
            if at > ended:
                break
            if online and at >= began:
                return True
            online = kind == "on"
        return online

    def _online_throughout(self, number: int, began: float, ended: float) -> bool:
        online_since = None
        for at, kind in self._ledger.events.get(number, ()):
            if kind == "on":
                online_since = at if online_since is None else online_since
            else:
                if online_since is not None and online_since <= began and at >= ended:
                    return True
                online_since = None
        return online_since is not None and online_since <= began


COLUMNS = ("lost", "out of order", "duplicates", "wrong receiver", "gaps", "receipts", "events", "ghosts", "other")


def _name(client: Client, book: DeviceBook) -> str:
    mode = "envelope" if client.envelope else "plain"
    return f"{mode} client {client.number} {client.client_id!r} device {client.devices.index(book)}"


def _describe(send: Send) -> str:
    where = f"to {send.chan!r}" if send.chan is not None else f"from {send.sender}"
    return f"message {send.uid} {where} accepted {send.began:.3f}-{send.ended or 0:.3f} ({send.tries} tries)"


def _around(connections: list[Connection], send: Send) -> str:
    parts = []
    for c in connections:
        closed = c.closed or float("inf")
        if c.opened - 30 < send.began < closed + 30:
            how = f"{c.code}{'' if c.orderly else ' cut'}{f' frozen {c.frozen:.3f}' if c.frozen else ''}"
            parts.append(f"[{c.opened:.3f}-{closed:.3f} {how} recovered={c.recovered} {c.server[-9:-3]}]")
    return " ".join(parts)


def _cut_near(connection: Connection, send: Send) -> bool:
    """Whether the message may have been written to a socket whose client had gone without a word."""
    assert send.ended is not None
    if connection.orderly or connection.closed is None:
        return False
    began = connection.frozen or connection.closed
    return began - SLACK < send.ended and send.began < connection.closed + SLACK
