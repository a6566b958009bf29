"""One connection: HTTP until the 101, then WebSocket frames. No task and no timer of its own.
A quiet socket keeps nothing of its handshake; a parser for unusual frames is made when one comes."""

from __future__ import annotations

import asyncio
from socket import AF_INET, SOCK_STREAM, SocketType
from typing import TYPE_CHECKING, cast

from websockets.exceptions import InvalidMessage
from websockets.http11 import Request
from websockets.server import ServerProtocol

from imhelper.core.position import Position

from . import entries, frames, handshake
from .commands import PING, Misspoken, understand
from .unusual import Unusual

if TYPE_CHECKING:
    from .hub import Hub
    from .state import Intervals, Member

__all__ = ["FRAME_MAX", "Socket"]

# What a client may send in one message, in bytes; more closes with 1009.
FRAME_MAX = 4096
HEAD_MAX = 16384
HEAD_END = b"\r\n\r\n"
# Of no log, for Redis's begin with the seconds of its clock.
NO_INCARNATION = b"0."

READING, ADMITTING, OPEN, CLOSING, ENDING = range(5)


class Socket(asyncio.Protocol):
    """A client's connection.

    `at` is the number of the last entry written while it is not live; a live socket is where its slot's cursor is.
    `floor` is the number after which everything was meant for it, `joined` the log's last number when it connected.
    `raw` is the connection itself. What is written goes to the kernel at once; what it does not take is `held` by the
    transport, and `safe` is the id of the entry before that. `answers` counts the bytes of answers to pings while it is
    paused; `early` holds what came before its time.
    """

    __slots__ = (
        "alive",
        "answers",
        "at",
        "at_id",
        "bucket",
        "early",
        "envelope",
        "floor",
        "head",
        "held",
        "hub",
        "joined",
        "live",
        "member",
        "metadata",
        "number",
        "parser",
        "paused",
        "raw",
        "safe",
        "state",
        "transport",
        "view",
    )

    transport: asyncio.Transport
    raw: SocketType
    member: Member
    envelope: bool

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.state = READING
        self.head: ServerProtocol | None = None
        self.parser: Unusual | None = None
        self.early = b""
        self.live = False
        self.alive = True
        self.paused = False
        self.held = False
        self.number = 0
        self.bucket = 0
        self.answers = 0
        self.metadata = b""
        self.at = self.floor = self.joined = 0
        self.at_id = self.safe = b"0-0"
        self.view: Intervals | None = None

    @property
    def sid(self) -> bytes:
        """The name of this socket in Redis."""
        return b"%s.%d" % (self.hub.boot_raw, self.number)

    @property
    def written(self) -> int:
        """The number of the last entry whose frames, if it has any for this client, were written."""
        return self.member.slot.n if self.live else self.at

    @property
    def caught_up(self) -> bool:
        """Whether it was given all that the log held when it connected."""
        return self.at >= self.joined

    def behind(self, cursor: int) -> bool:
        """Whether there is something in the log that it needs before it can join the live flow at that cursor."""
        return self.at < cursor or self.at < self.joined

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for a request, for a limited time."""
        self.transport = cast(asyncio.Transport, transport)
        # Only to send with: the transport keeps the descriptor open until `connection_lost`, and closes it then.
        self.raw = SocketType(AF_INET, SOCK_STREAM, 0, transport.get_extra_info("socket").fileno())
        self.transport.set_write_buffer_limits(self.hub.buffer_bytes, self.hub.buffer_bytes // 4)
        self.bucket = self.hub.patience.add(self)
        self.hub.connected.add(self)
        leaving = self.hub.room.come(self, len(self.hub.connected))
        if leaving is not None:
            self.hub.stats.handshakes["full"] += 1
            leaving.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client, at whatever state."""
        self.alive = True
        self.hub.heard.add(self.transport, len(data))
        if self.state == OPEN:
            self._frames(data)
        elif self.state == READING:
            self._head(data)
        elif self.state == CLOSING:
            self._closing(data)
        elif self.state == ADMITTING:
            self.early += data
            if len(self.early) > FRAME_MAX:
                self.transport.abort()

    def pause_writing(self) -> None:
        """The buffer is over its bound: a live socket is too slow, a replaying one waits."""
        self.paused = True
        if self.live:
            self.hub.too_slow(self)

    def resume_writing(self) -> None:
        """The buffer has drained: a replay goes on."""
        self.paused = False
        self.answers = 0
        if self.state == OPEN and not self.live:
            self.hub.replay(self)

    def eof_received(self) -> None:
        """The client will send no more; the transport closes once its buffer is written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, however it ended."""
        self._leave(1006)
        self.raw.detach()
        self.hub.patience.remove(self, self.bucket)
        self.hub.connected.discard(self)
        self.hub.room.spoke(self)
        self.state = ENDING
        self.head = self.parser = None

    # The handshake.

    def _head(self, data: bytes) -> None:
        if self.head is None:
            asked = handshake.quick(data)
            if asked is not None:
                self._asked(asked)
                return
            self.head = handshake.new_parser()
        parser = self.head
        # Frames may come on the heels of a request: they are not the parser's.
        seen = self.early + data
        end = seen.find(HEAD_END)
        upto = len(data) if end < 0 else end + len(HEAD_END) - len(self.early)
        self.early = seen[1 - len(HEAD_END) :] if end < 0 else data[upto:]
        parser.receive_data(data[:upto])
        self.at += upto
        for event in parser.events_received():
            if isinstance(event, Request):
                self._request(parser, event)
                return
        if isinstance(parser.handshake_exc, InvalidMessage):
            self.refuse(handshake.BAD_REQUEST)
        elif parser.handshake_exc is not None:
            self._refuse_as(parser)
        elif self.at > HEAD_MAX:
            self.refuse(handshake.TOO_LARGE)

    def _refuse_as(self, parser: ServerProtocol) -> None:
        """Send the answer that `websockets` has for a request that is none."""
        self.hub.stats.handshakes["bad_request"] += 1
        self.transport.writelines(parser.data_to_send())
        self._end()

    def _request(self, parser: ServerProtocol, request: Request) -> None:
        answer = parser.accept(request)
        upgrade = answer.status_code == 101
        if not upgrade:
            parser.send_response(answer)
        self._asked(handshake.asked(request), upgrade)

    def _asked(self, asked: handshake.Asked, upgrade: bool = True) -> None:
        wanted = handshake.inspect(asked, self.hub.settings.allowed_origins, self.hub.slots_count)
        if isinstance(wanted, handshake.Refusal):
            # Before the topology is known a good token can't be told from a bad one.
            unsure = wanted is handshake.UNAUTHORIZED and not self.hub.ready
            self.refuse((self.hub.refusal() if unsure else None) or wanted)
            return
        self.envelope = wanted.envelope
        self.state = ADMITTING
        self.hub.room.spoke(self)
        self.at = 0
        if upgrade:
            self.head = None
        self.hub.admit(self, wanted, handshake.switching(asked, wanted) if upgrade else None)

    def refuse_request(self) -> None:
        """The token is good, but a WebSocket was not asked for."""
        if self.head is not None:
            self._refuse_as(self.head)

    def refuse(self, refusal: handshake.Refusal) -> None:
        """Answer with HTTP and hang up."""
        self.hub.stats.handshakes[refusal.result] += 1
        self.transport.write(handshake.response(refusal))
        self._end()

    def opened(self, answer: bytes) -> None:
        """The client is recorded: answer 101 (and hello with it), and from now on speak frames."""
        self.state = OPEN
        self.hub.patience.remove(self, self.bucket)
        self.bucket = self.hub.pings.add(self)
        self.send(answer, self.at_id)
        early, self.early = self.early, b""
        if early:
            self._frames(early)

    # Frames.

    def _frames(self, data: bytes) -> None:
        answers: list[bytes] = []
        if self.parser is None:
            at = 0
            for opcode, payload, after in frames.short_frames(data):
                at = after
                if opcode == frames.TEXT:
                    answers.append(self._text(payload))
                elif opcode == frames.PING:
                    answers.append(frames.frame(frames.PONG, payload))
                elif opcode == frames.BINARY:
                    self._binary()
                if self.state != OPEN:
                    break
            if at == len(data):
                self._answer(answers)
                return
            data = data[at:]
            self.parser = Unusual(FRAME_MAX)
            if self.state != OPEN:
                self._closing(data)
                return
        read = self.parser.feed(data)
        if read.binary:
            self._binary()
        for text in read.texts:
            if self.state == OPEN:
                answers.append(self._text(text))
        if self.state == OPEN:
            answers.append(read.out)
            self._answer(answers)
            if read.closed is not None:
                # What a client may name as it likes is not told apart: neither in counts nor by what follows from it.
                self._leave(read.closed if read.closed < 3000 else 3000)
        if read.closed is not None:
            self._end()

    def _answer(self, answers: list[bytes]) -> None:
        """Write what a client asked for. One that asks and asks but does not read is too slow, in a replay too."""
        data = b"".join(answers)
        if not data or self.state != OPEN or self.answers > self.hub.buffer_bytes:
            # Over its bound it is closed as soon as the loop has a turn.
            return
        self.send(data, self.reached)
        if self.paused:
            self.answers += len(data)
            if self.answers > self.hub.buffer_bytes:
                self.hub.too_slow(self)

    def _binary(self) -> None:
        if self.envelope:
            self.close(4501, "binary frames are not part of the protocol")

    def _text(self, payload: bytes) -> bytes:
        """Do what a client says, and return the answer, if it gets one."""
        try:
            said = understand(payload, self.envelope)
        except Misspoken as error:
            self.close(error.code, error.reason)
            return b""
        if isinstance(said, Position):
            self.hub.acked_by_client(self, said)
        return entries.pong(self.position()) if said == PING else b""

    def position(self) -> bytes:
        """POS: everything up to it was written to this socket. A muted one gets none that it could go on from."""
        return (NO_INCARNATION if self.muted else self.hub.incarnation[self.member.slot.group]) + self.reached

    @property
    def muted(self) -> bool:
        """Whether it is out of the flow, and only its close is left to come."""
        return not self.live and self not in self.member.slot.waiting

    def mute(self) -> None:
        """Out of the flow for good: it stays where it is."""
        self.at, self.at_id = self.written, self.reached
        self.member.slot.mute(self)

    def go_live(self) -> None:
        """Join the live flow: everything up to the slot's cursor was written."""
        view, self.view = self.view, None
        self.member.slot.promote(self, view or {})

    # Writing, once it is open.

    def send(self, data: bytes, before: bytes) -> None:
        """Write to the kernel, or as soon as it takes it. `before` is the id of the last entry before this.

        `send(2)` costs less than the transport's way, and tells at once what the kernel took: it saves a tenth of the
        CPU of a channel message.
        """
        if self.held and self.unsent():
            self.transport.write(data)
            return
        try:
            sent = self.raw.send(data)
        except OSError:
            # Full; or broken, which the transport will find out.
            sent = 0
        if sent != len(data):
            self.hold(data[sent:], before)

    def hold(self, rest: bytes, before: bytes) -> None:
        """Leave to the transport what the kernel did not take."""
        self.held, self.safe = True, before
        if not self.envelope:
            self.member.slot.stalled.add(self)
        self.transport.write(rest)

    def unsent(self) -> bool:
        """Whether the transport holds something that the kernel has not taken."""
        if self.held and not self.transport.get_write_buffer_size():
            self.held = False
            self.member.slot.stalled.discard(self)
        return self.held

    @property
    def reached(self) -> bytes:
        """The id of the last entry that was written, if it has something for this client."""
        return self.member.slot.id if self.live else self.at_id

    @property
    def place(self) -> bytes:
        """The id of the last entry that is in the kernel's hands with all that came before it."""
        return self.safe if self.held else self.reached

    # The end.

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and leave every index at once; the connection ends when the client answers, or soon."""
        if self.state != OPEN:
            return
        self._leave(code)
        self.transport.write(frames.close_frame(code, reason))

    def _closing(self, data: bytes) -> None:
        if self.parser is None:
            self.parser = Unusual(FRAME_MAX)
        if self.parser.feed(data).closed is not None:
            self._end()

    def _end(self) -> None:
        """Hang up after what is in the buffer, within the time that the wheel gives.

        What still comes is read and dropped: closing with unread data resets the connection, and the client would
        never see why.
        """
        self.state = ENDING
        self.head = self.parser = None
        self.early = b""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _leave(self, code: int) -> None:
        """Out of every index; from here on only the end of the connection is waited for, and not for long."""
        if self.state == OPEN:
            self.hub.pings.remove(self, self.bucket)
            self.hub.left(self, code)
            self.state = CLOSING
            self.bucket = self.hub.patience.add(self)
