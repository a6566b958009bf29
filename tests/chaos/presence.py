# Judges what a ledger says of one client's presence: its events, its sockets after a disconnect.
# Pure. The order is on, off, on, …; off comes after grace, in time, and never to one that is connected.

from collections.abc import Callable

from tests.chaos.ledger import Client
from tests.chaos.rules import Rules

__all__ = ["judge_presence"]

Fault = Callable[[str, str], None]
# How long a close frame may take to arrive while everything is under fire.
CLOSE_SECONDS = 10.0


def judge_presence(fault: Fault, rules: Rules, client: Client) -> None:
    """Call `fault(column, text)` for whatever is wrong with a client's presence."""
    events = rules.ledger.events.get(client.number, [])
    expected = "on"
    for at, kind in events:
        # Servers that record their sockets again after a loss tell no event: an off may stand alone from then on.
        if kind != expected and not any(loss < at + rules.slack for loss in rules.ledger.losses):
            fault("events", f"{client.client_id}: {kind} at {at:.3f} where {expected} was due")
        expected = "off" if kind == "on" else "on"
    spans = sorted(
        (c.opened, c.frozen or c.closed or float("inf")) for book in client.devices for c in book.connections
    )
    connected = any(end == float("inf") for _, end in spans)
    if connected and events and events[-1][1] != "on" and not rules.ledger.losses:
        fault("events", f"{client.client_id}: connected, but the last event is off")
    if spans and not events and not rules.ledger.losses:
        fault("events", f"{client.client_id}: connected and no event")
    # One whose device does not read may be given up by its server long before it hears of that.
    heard = sorted(
        (c.opened, c.frozen or c.slow or c.closed or float("inf")) for book in client.devices for c in book.connections
    )
    _offs_in_order(fault, rules, client, heard)
    _gaps_have_offs(fault, rules, client, spans)
    _disconnects(fault, rules, client)


def _offs_in_order(fault: Fault, rules: Rules, client: Client, spans: list[tuple[float, float]]) -> None:
    for off in rules.offs.get(client.number, ()):
        if rules.lost_near(off, off) or any(
            d.began - rules.slack < off < d.ended + rules.slack for d in client.disconnects
        ):
            continue
        for opened, end in spans:
            if opened < off - rules.slack and off < end + rules.grace - rules.slack:
                fault("events", f"{client.client_id}: off at {off:.3f}, connected {opened:.3f} to {end:.3f}")


def _gaps_have_offs(fault: Fault, rules: Rules, client: Client, spans: list[tuple[float, float]]) -> None:
    bound = rules.lease + rules.grace + 2 + 2 * rules.slack
    # An off within a connection is another rule's; a disconnect's comes before the client hears of it.
    began = covered = 0.0
    for opened, end in spans:
        too_long = covered and opened - covered > bound + rules.outages(covered, opened)
        if too_long and not any(
            began - rules.slack < off < opened + rules.slack for off in rules.offs.get(client.number, ())
        ):
            fault("events", f"{client.client_id}: away from {covered:.3f} to {opened:.3f} and no off")
        if end > covered:
            began, covered = opened, end


def _disconnects(fault: Fault, rules: Rules, client: Client) -> None:
    """A disconnect closes every socket that was open before it."""
    for disconnect in client.disconnects:
        for book in client.devices:
            for c in book.connections:
                closed = c.closed or float("inf")
                bound = disconnect.ended + CLOSE_SECONDS + rules.lease + rules.grace
                bound += rules.outages(disconnect.ended, closed) + rules.freezes(disconnect.ended, closed)
                late = c.opened < disconnect.began and closed > bound
                if late and not rules.lost_near(disconnect.began, disconnect.ended):
                    fault("other", f"{client.client_id}: disconnected at {disconnect.ended:.3f}, and still open")
