# The server's indexes under any order of enter, promote, join, leave and exit: they must stay what a plain model says.
# A socket left behind in an index would get what is not its own, or keep memory for ever.

from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imhelper.core.position import StreamId
from imserver.state import Intervals, Slot

CLIENTS = st.sampled_from([b"ann", b"bob", b"c{*:"])
CHANS = st.sampled_from([b"x", b"y", b"z:'{"])


class Socket:
    """What `Slot` knows of a socket."""

    def __init__(self, envelope: bool, number: int) -> None:
        self.envelope = envelope
        self.number = number
        self.live = False
        self.member: Any = None


class Indexes(RuleBasedStateMachine):
    """The model: the open sockets with their clients, which of them are live, and what the log says of memberships."""

    def __init__(self) -> None:
        super().__init__()
        self.slot = Slot(5, 0, b"key", StreamId(1, 100))
        self.n = 100
        self.open: dict[Socket, bytes] = {}
        self.chans: dict[bytes, dict[bytes, int]] = {}

    def client_live(self, client: bytes) -> bool:
        return any(s.live for s, c in self.open.items() if c == client)

    def view(self, client: bytes) -> Intervals:
        """What a socket that read everything, and perhaps more, knows: spans past, present and to come."""
        spans: Intervals = {b"was": [(1, 5)], b"will be": [(self.n + 1, None)]}
        for number, (chan, joined) in enumerate(self.chans.get(client, {}).items()):
            spans[chan] = [(1, 2), (joined, self.n + 2 if number % 2 else None)]
        return spans

    @rule(client=CLIENTS, envelope=st.booleans())
    def enter(self, client, envelope):
        socket = Socket(envelope, self.slot.newest + 1)
        socket.member = self.slot.enter(cast(Any, socket), client)
        self.open[socket] = client

    @precondition(lambda self: any(not s.live for s in self.open))
    @rule(data=st.data())
    def promote(self, data):
        socket = data.draw(st.sampled_from([s for s in self.open if not s.live]))
        # Only the first live one of a client brings a view that matters; what others bring must change nothing.
        stale = {b"stale": [(1, None)]} if self.client_live(self.open[socket]) else self.view(self.open[socket])
        self.slot.promote(cast(Any, socket), cast(Any, stale))

    @rule(client=CLIENTS, chan=CHANS)
    def join(self, client, chan):
        self.n = self.slot.n = self.n + 1
        self.slot.join(client, chan, self.n)
        self.chans.setdefault(client, {}).setdefault(chan, self.n)

    @rule(client=CLIENTS, chan=CHANS)
    def leave(self, client, chan):
        self.n = self.slot.n = self.n + 1
        self.slot.leave(client, chan)
        self.chans.get(client, {}).pop(chan, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def exit(self, data):
        socket = data.draw(st.sampled_from(list(self.open)))
        if not socket.envelope and data.draw(st.booleans()):
            self.slot.stalled.add(cast(Any, socket))
        self.slot.exit(cast(Any, socket))
        assert not socket.live
        del self.open[socket]

    @invariant()
    def members_are_the_open_sockets(self):
        held = {c: set(m.sockets) for c, m in self.slot.members.items()}
        wanted: dict[bytes, set[Any]] = {}
        for socket, client in self.open.items():
            wanted.setdefault(client, set()).add(socket)
        assert held == wanted
        assert all(len(m.sockets) == len(set(m.sockets)) for m in self.slot.members.values())
        assert {m.client: m.live for m in self.slot.members.values()} == {
            c: sum(s.live for s in sockets) for c, sockets in wanted.items()
        }
        assert all(m.slot is self.slot and m.client == c for c, m in self.slot.members.items())

    @invariant()
    def waiting_and_live_part_the_open_sockets(self):
        waiting: set[Any] = {s for s in self.open if not s.live}
        assert self.slot.waiting == waiting
        assert self.slot.plain == sum(not s.envelope for s in self.open)
        assert self.slot.stalled <= set(self.open)

    @invariant()
    def channels_hold_the_live_sockets_of_their_members_by_mode(self):
        plain: dict[bytes, set[Any]] = {}
        envelope: dict[bytes, set[Any]] = {}
        for socket, client in self.open.items():
            if socket.live:
                for chan in self.chans.get(client, {}):
                    (envelope if socket.envelope else plain).setdefault(chan, set()).add(socket)
        assert {c: f.plain for c, f in self.slot.fans.items() if f.plain} == plain
        assert {c: f.envelope for c, f in self.slot.fans.items() if f.envelope} == envelope
        assert all(len(f) for f in self.slot.fans.values()), "an empty channel is kept"

    @invariant()
    def memberships_are_kept_while_somebody_is_live_with_the_number_of_the_join(self):
        for client, member in self.slot.members.items():
            wanted = self.chans.get(client) or None if member.live else None
            assert member.chans == wanted


Indexes.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIndexes = Indexes.TestCase
