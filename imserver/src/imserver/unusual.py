"""The full WebSocket parser, for the frames that the fast one leaves: long, fragmented, closing or malformed ones.
`websockets` judges them; this keeps the fragments of a message together."""

from __future__ import annotations

from typing import NamedTuple

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

__all__ = ["Read", "Unusual"]


class Read(NamedTuple):
    """What came of some bytes: what to write, whole messages, and the close code if the connection is over."""

    out: bytes
    texts: list[bytes]
    binary: bool
    closed: int | None


class Unusual:
    """Parses for one socket from the first unusual frame on. `max_size` bounds a message in bytes."""

    __slots__ = ("_pieces", "_protocol")

    def __init__(self, max_size: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size)
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Read:
        """Take bytes from the client."""
        protocol = self._protocol
        protocol.receive_data(data)
        texts: list[bytes] = []
        binary = False
        for event in protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.BINARY:
                binary = True
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._pieces.append(bytes(event.data))
                if event.fin:
                    texts.append(b"".join(self._pieces))
                    self._pieces = []
        closed: int | None = None
        if protocol.state is not State.OPEN:
            close = protocol.close_rcvd or protocol.close_sent
            closed = close.code if close is not None else 1006
        return Read(b"".join(protocol.data_to_send()), texts, binary, closed)
