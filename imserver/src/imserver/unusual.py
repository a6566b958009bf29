"""The full WebSocket parser, for the frames that the fast one leaves: long, fragmented, closing or malformed ones.
`websockets` judges them; this keeps the fragments of a message together."""

from __future__ import annotations

from typing import NamedTuple

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

__all__ = ["Read", "Unusual"]


class Read(NamedTuple):
    """What came of some bytes: what to write, whole texts, whether something binary came, and the close code if the
    connection is over. The texts came before the close."""

    out: bytes
    texts: list[bytes]
    binary: bool
    closed: int | None


class Unusual:
    """Parses for one socket from the first unusual frame on. `max_size` bounds a message in bytes."""

    __slots__ = ("_pieces", "_protocol", "_text")

    def __init__(self, max_size: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size)
        # One buffer, not a list of fragments: a message may have any number of empty ones.
        self._pieces = bytearray()
        self._text = True

    def feed(self, data: bytes) -> Read:
        """Take bytes from the client."""
        protocol = self._protocol
        protocol.receive_data(data)
        texts: list[bytes] = []
        binary = False
        for event in protocol.events_received():
            if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            if event.opcode is not Opcode.CONT:
                self._text = event.opcode is Opcode.TEXT
                binary = binary or not self._text
            if self._text:
                self._pieces += event.data
                if event.fin:
                    texts.append(bytes(self._pieces))
                    self._pieces.clear()
        closed: int | None = None
        if protocol.state is not State.OPEN:
            close = protocol.close_rcvd or protocol.close_sent
            closed = close.code if close is not None else 1006
        return Read(b"".join(protocol.data_to_send()), texts, binary, closed)
