# What happened in a run, written down as it happens: sends, joins, what each device got, events, faults.
# Plain data on one clock (time.time(), which Redis on this machine shares); verdict.py judges it.

import time
from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["Client", "Connection", "DeviceBook", "Fault", "Ledger", "Receipt", "Send", "now"]

now = time.time


@dataclass(slots=True)
class Send:
    """One message. It was accepted somewhere in [began, ended]; `ended` is None while it is not known to be."""

    uid: int
    sender: int
    receivers: tuple[int, ...]
    chan: str | None
    receipt: bool
    began: float
    ended: float | None = None
    ids: set[str] = field(default_factory=set)
    tries: int = 0


@dataclass(slots=True)
class Connection:
    """One connection of a device that was opened. `orderly` closes let everything written before arrive.

    `frozen` is since when its server did nothing any more, `slow` since when its client did not read.
    """

    server: str
    opened: float
    recovered: bool | None
    since: bool
    closed: float | None = None
    code: int = 0
    orderly: bool = True
    frozen: float | None = None
    slow: float | None = None


@dataclass(slots=True)
class Receipt:
    """A receipt as it came: when, and with which status."""

    at: float
    status: str


class DeviceBook:
    """What one device saw.

    `order` holds each message once, in the order of first arrival; `all` each arrival with the connection's number;
    `given_up` when a handshake was no longer waited for, though the server may have taken it.
    """

    def __init__(self, client: int, envelope: bool) -> None:
        self.client = client
        self.envelope = envelope
        self.order: list[int] = []
        self.all: list[tuple[int, int]] = []
        self.arrived: dict[int, float] = {}
        self.ids: dict[int, str] = {}
        self.other_ids: list[int] = []
        self.twice_on_one: list[int] = []
        self.repeats: list[tuple[int, float]] = []
        self.last_connection: dict[int, int] = {}
        self.connections: list[Connection] = []
        self.given_up: list[float] = []
        self.receipts: dict[tuple[object, int | None], list[Receipt]] = defaultdict(list)
        self.alien: list[str] = []
        self.reconnects: list[float] = []

    def took(self, uid: int, message_id: str | None, current: int) -> bool:
        """A message arrived on the device's connection number `current`. False: it was seen before."""
        self.all.append((current, uid))
        if uid in self.arrived:
            if message_id is not None and self.ids[uid] != message_id:
                self.other_ids.append(uid)
            elif self.last_connection.get(uid) == current:
                self.twice_on_one.append(uid)
            self.repeats.append((uid, now()))
            self.last_connection[uid] = current
            return False
        self.arrived[uid] = now()
        self.order.append(uid)
        self.last_connection[uid] = current
        if message_id is not None:
            self.ids[uid] = message_id
        return True


@dataclass(slots=True)
class Change:
    """A join, leave or disconnect: it took effect somewhere in [began, ended]; if not `certain`, perhaps not at all."""

    began: float
    ended: float
    certain: bool = True


@dataclass(slots=True)
class Client:
    """A client and the books of its devices.

    `gone` is when it left for good, if it did; `floods` when large messages in a row began to come to it.
    """

    number: int
    client_id: str
    envelope: bool
    devices: list[DeviceBook] = field(default_factory=list)
    gone: float | None = None
    disconnects: list[Change] = field(default_factory=list)
    floods: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Fault:
    """A fault from its beginning to when its own cause was over."""

    kind: str
    target: str
    began: float
    ended: float


class Ledger:
    """The whole run."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.sends: dict[int, Send] = {}
        self.joins: dict[tuple[int, str], list[Change]] = defaultdict(list)
        self.leaves: dict[tuple[int, str], list[Change]] = defaultdict(list)
        self.events: dict[int, list[tuple[float, str]]] = defaultdict(list)
        self.faults: list[Fault] = []
        self.opened: list[float] = []
        self.refused: dict[int, int] = defaultdict(int)
        self.closes: dict[int, int] = defaultdict(int)
        self.errors: dict[str, int] = defaultdict(int)
        # When Redis may have lost what it had acknowledged, and when another primary took over that has it all.
        self.losses: list[float] = []
        self.switches: list[float] = []
        self.stalls: list[float] = []
        self.broken_promises: list[str] = []
        self._numbers: dict[str, int] = {}

    def number_of(self, client_id: str) -> int | None:
        """The client of an id, or None for one that nobody made."""
        if len(self._numbers) != len(self.clients):
            self._numbers = {c.client_id: c.number for c in self.clients}
        return self._numbers.get(client_id)
