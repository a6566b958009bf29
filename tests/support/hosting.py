# A server without sockets and without a clock: what an imserver asks of Redis, step by step, in any order.
# For the model of presence: each step is one call of the real scripts, so that anything may come between two of them.

import itertools
from dataclasses import dataclass, field

from imhelper._backend.blocking import Link
from imhelper.core import keys
from imhelper.core.position import parse_id
from imhelper.core.scripts import load
from imhelper.core.slots import slot_of
from imhelper.core.tokens import make_token

SLOTS = 128
TAG = keys.group_tag("im", 0)
RETENTION = (10_000, 1 << 24, 60_000)
MAX_SOCKETS = 2
_boots = itertools.count(1)


@dataclass
class Host:
    """One process: the sockets that it holds, what it knows of channels, how far it has read each log."""

    link: Link
    name: str
    boot: str = ""
    sockets: dict[int, str] = field(default_factory=dict)
    chans: dict[str, set[str]] = field(default_factory=dict)
    cursors: dict[int, bytes] = field(default_factory=dict)
    frozen: bool = False
    over: bool = False
    beats: int = 0
    numbers: int = 0

    def start(self) -> str:
        """Take the name. Returns the boot that had it, or ''."""
        self.boot = f"boot{next(_boots)}"
        reply = self.link.eval(load("beat"), None, self.name, self.boot, 1, "{}", "", 0)
        assert reply[0] == b"ok"
        self.inc = self.link.eval(load("boot"), 0, self.boot)
        return str(reply[3].decode())

    def beat(self) -> str:
        """Renew the lease: ok, fenced, or lost (and taken again)."""
        status = ""
        for may_restore in (0, 1):
            reply = self.link.eval(load("beat"), None, self.name, self.boot, 0, "{}", "", may_restore)
            status = status or reply[0].decode()
            if reply[0] != b"lost":
                break
        return status

    def connect(self, client: str, mode: str) -> tuple[str, int]:
        """A handshake whose reply is not looked at yet: what was said, and the socket's number."""
        self.numbers += 1
        slot = slot_of(client, SLOTS)
        token = make_token(slot)
        self.link.eval(load("mint"), 0, token, 60_000, client, "meta")
        self.inc = self.link.command(0, "GET", f"{TAG}:inc") or self.inc
        reply = self.link.eval(
            *(load("connect"), 0, self.boot, self.numbers, token, slot, mode, "", "", MAX_SOCKETS),
            *(*RETENTION, self.inc),
        )
        if reply[0] == b"ok" and not self.frozen:
            self.read()
            self.sockets[self.numbers] = client
            self.cursors.setdefault(slot, reply[3])
            self.chans[client] = {chan.decode() for chan in reply[6][::2]}
        return reply[0].decode(), self.numbers

    def close(self, number: int, grace_ms: int) -> int:
        """Tell of a socket's end."""
        self.sockets.pop(number, None)
        gone: int = self.link.eval(load("close"), 0, self.boot, grace_ms, *RETENTION, number, "0-0")
        return gone

    def read(self) -> None:
        """Work off the logs: channels joined and left, sockets evicted, clients disconnected."""
        for slot, cursor in self.cursors.items():
            last = self.link.command(0, "HGET", f"{TAG}:last", slot) or b"0-0"
            if parse_id(last) < parse_id(cursor):
                self.cursors[slot] = last
                continue
            for entry, f in self.link.command(0, "XRANGE", f"{TAG}:log:{slot}", b"(" + cursor, "+"):
                self._apply([value.decode() for value in f])
                self.cursors[slot] = entry

    def _apply(self, f: list[str]) -> None:
        if f[0] == "j":
            self.chans.setdefault(f[3], set()).add(f[1])
        elif f[0] == "l":
            for client in f[3].split("\n"):
                self.chans.get(client, set()).discard(f[1])
        elif f[0] == "e":
            boot, _, number = f[1].rpartition(".")
            if boot == self.boot:
                self.sockets.pop(int(number), None)
        elif f[0] == "d":
            self.sockets = {n: client for n, client in self.sockets.items() if client != f[1]}

    def restore(self) -> bool:
        """Compare what is recorded with what it holds, as a server does. False: it was reclaimed, and must end."""
        if self.link.eval(load("boot"), 0, self.boot) is None:
            return False
        for _ in range(3):
            args: list[str | int | bytes] = []
            for slot in {slot_of(client, SLOTS) for client in self.sockets.values()}:
                held = [(n, client) for n, client in self.sockets.items() if slot_of(client, SLOTS) == slot]
                args += [slot, self.cursors[slot], len(held)]
                for n, client in held:
                    chans = sorted(self.chans.get(client, ()))
                    args += [n, client, self.cursors[slot], "e", "meta", len(chans), *chans]
            done, *behind = self.link.eval(load("restore"), 0, *RETENTION, self.boot, *args)
            assert done >= 0
            if not behind:
                break
            self.read()
        for number in self.link.command(0, "HKEYS", f"{TAG}:bs:{self.boot}"):
            if int(number) not in self.sockets:
                self.close(int(number), 60_000)
        return True
