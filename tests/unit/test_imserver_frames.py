# Frames of clients, in any pieces: the fast parser with its fallback must see what `websockets` sees, or hand over.
# The sockets are the server's own; only the transport and the hub behind them are stand-ins.

import os
from struct import pack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from imserver import frames
from imserver.heard import Heard
from imserver.socket import CLOSING, ENDING, FRAME_MAX, OPEN, Socket
from imserver.unusual import Unusual
from imserver.wheel import Wheel
from tests.support.pipe import Pipe


class Hub:
    """What a socket asks of its hub once it is open."""

    def __init__(self) -> None:
        self.pings: Wheel[Socket] = Wheel(4)
        self.patience: Wheel[Socket] = Wheel(4)
        self.codes: list[int] = []
        self.slow = 0
        self.buffer_bytes = 1000
        self.heard = Heard()

    def left(self, socket: Socket, code: int) -> None:
        self.codes.append(code)

    def too_slow(self, socket: Socket) -> None:
        self.slow += 1

    def replay(self, socket: Socket) -> None:
        pass


class Recorder(Socket):
    """A socket of plain mode that tells which messages it got."""

    __slots__ = ("binaries", "hub_", "pipe", "texts")

    def __init__(self) -> None:
        self.hub_ = Hub()
        super().__init__(cast(Any, self.hub_))
        self.pipe = Pipe()
        self.transport = self.raw = cast(Any, self.pipe)
        self.member = cast(Any, SimpleNamespace(slot=None))
        self.state = OPEN
        self.envelope = False
        self.texts: list[bytes] = []
        self.binaries = 0

    def _text(self, payload: bytes) -> bytes:
        self.texts.append(payload)
        return super()._text(payload)

    def _binary(self) -> None:
        self.binaries += 1
        super()._binary()


def mask(payload: bytes, key: bytes) -> bytes:
    return bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def client_frame(
    opcode: int,
    payload: bytes,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    key: bytes = b"kEy!",
    longer: int = 0,
) -> bytes:
    """A frame as a client may send it; `longer` makes the length field larger than it need be."""
    size, bit = len(payload), 0x80 * masked
    head = bytes([0x80 * fin | rsv << 4 | opcode])
    if size < 126 and not longer:
        head += bytes([bit | size])
    elif size < 65536 and longer < 2:
        head += pack("!BH", bit | 126, size)
    else:
        head += pack("!BQ", bit | 127, size)
    return head + (key + mask(payload, key) if masked else payload)


def reference(data: bytes) -> tuple[list[bytes], bool, bytes, int | None]:
    """What `websockets` makes of the bytes: whole texts, whether anything was binary, its answers, the close code."""
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=FRAME_MAX)
    protocol.receive_data(data)
    texts, parts, binary, text = [], b"", False, False
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            text, parts = event.opcode is Opcode.TEXT, b""
            binary = binary or not text
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts += bytes(event.data)
            if event.fin and text:
                texts.append(parts)
    code = None
    if protocol.state is not State.OPEN:
        close = protocol.close_rcvd or protocol.close_sent
        code = close.code if close else 1006
    return texts, binary, b"".join(protocol.data_to_send()), code


PAYLOADS = st.binary(max_size=130) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.encode)
PROPER = st.one_of(
    st.builds(client_frame, st.just(1), TEXTS, key=st.binary(min_size=4, max_size=4)),
    st.builds(client_frame, st.just(2), PAYLOADS),
    st.builds(client_frame, st.sampled_from([9, 10]), st.binary(max_size=125)),
)
FRAGMENTED = st.builds(
    lambda op, parts, ping: b"".join(
        client_frame(op if i == 0 else 0, p, fin=i == len(parts) - 1)
        + (client_frame(9, b"p") if ping and i == 0 else b"")
        for i, p in enumerate(parts)
    ),
    st.sampled_from([1, 2]),
    st.lists(st.text("aé", max_size=20).map(str.encode), min_size=2, max_size=4),
    st.booleans(),
)
ODD = st.one_of(
    st.builds(client_frame, st.integers(0, 15), PAYLOADS, fin=st.booleans(), rsv=st.sampled_from([0, 0, 0, 1, 4, 7])),
    st.builds(client_frame, st.integers(0, 15), PAYLOADS, masked=st.booleans(), longer=st.integers(0, 2)),
    st.builds(
        client_frame,
        st.just(8),
        st.builds(lambda c, r: pack("!H", c) + r, st.integers(0, 65535), st.binary(max_size=20)),
    ),
    st.just(client_frame(8, b"")),
    st.just(client_frame(1, b"x" * (FRAME_MAX + 1))),
    st.binary(max_size=10),
)
STREAMS = st.builds(
    lambda good, tail: b"".join([*good, *tail]),
    st.lists(PROPER | FRAGMENTED, max_size=6),
    st.lists(PROPER | FRAGMENTED | ODD, max_size=3),
)


@given(STREAMS, st.lists(st.integers(1, 40), max_size=30))
def test_any_stream_in_any_pieces_is_read_as_websockets_reads_it(data, cuts):
    texts, binary, out, code = reference(data)
    invalid = next((i for i, t in enumerate(texts) if b"\xff" in t or not is_utf8(t)), None)
    socket = Recorder()
    at = 0
    for cut in [*cuts, len(data)]:
        socket.data_received(data[at : at + cut])
        at += cut
    assert socket.parser is None or socket.state != ENDING
    if invalid is not None:
        assert socket.texts == texts[: invalid + 1]
        assert socket.hub_.codes == [1007] and socket.state in (CLOSING, ENDING)
        return
    assert socket.texts == texts
    assert bool(socket.binaries) == binary
    assert socket.pipe.text == out
    assert socket.hub_.codes == ([] if code is None else [min(code, 3000)])
    assert socket.pipe.ended == (code is not None)


def is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(STREAMS)
def test_the_fast_parser_yields_whole_frames_only_and_says_where_it_stopped(data):
    at = 0
    for opcode, payload, after in frames.short_frames(data):
        protocol = Protocol(Side.SERVER, state=State.OPEN)
        protocol.receive_data(data[at:after])
        [frame] = protocol.events_received()
        assert isinstance(frame, Frame)
        assert (frame.opcode, bytes(frame.data), frame.fin) == (opcode, payload, True)
        at = after
    rest = data[at:]
    # It stops only where a whole, short, single frame does not begin.
    assert (
        len(rest) < 6
        or rest[0] not in (0x81, 0x82, 0x89, 0x8A)
        or not 0x80 <= rest[1] <= 0xFD
        or len(rest) < 6 + (rest[1] & 0x7F)
    )


@given(st.sampled_from([1, 2, 8, 9, 10]), st.integers(0, 70000))
def test_a_frame_that_is_built_is_read_back(opcode, size):
    payload = os.urandom(min(size, 120 if opcode >= 8 else size))
    if opcode == Opcode.CLOSE:
        payload = pack("!H", 1000)
    protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    protocol.receive_data(frames.frame(opcode, payload))
    [frame] = protocol.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, bytes(frame.data), frame.fin) == (opcode, payload, True)


@given(st.text(max_size=200), st.sampled_from([1007, 1012, 4000, 4500]))
def test_a_close_frame_is_legal_whatever_its_reason(reason, code):
    reason = reason.encode("utf-8", "ignore").decode()
    protocol = Protocol(Side.CLIENT, state=State.OPEN)
    protocol.receive_data(frames.close_frame(code, reason))
    assert protocol.close_rcvd is not None
    assert protocol.close_rcvd.code == code
    assert reason.startswith(protocol.close_rcvd.reason)
    assert len(reason.encode()) > 119 or protocol.close_rcvd.reason == reason


# What must not be lost or kept.


def test_texts_before_a_close_in_the_same_bytes_are_heard():
    socket = Recorder()
    socket.data_received(
        client_frame(1, b"x" * 200) + client_frame(1, b"last words") + client_frame(8, pack("!H", 1000))
    )
    assert socket.texts == [b"x" * 200, b"last words"]
    assert socket.hub_.codes == [1000]


def test_a_binary_message_in_pieces_is_no_text():
    socket = Recorder()
    for piece in (
        client_frame(2, b"\xff\xfe", fin=False),
        client_frame(0, b"\xff", fin=False),
        client_frame(0, b"\xff"),
    ):
        socket.data_received(piece)
    assert socket.texts == [] and socket.state == OPEN


def test_fragments_without_content_take_no_memory():
    parser = Unusual(FRAME_MAX)
    parser.feed(client_frame(1, b"a", fin=False))
    piece = client_frame(0, b"", fin=False) * 1000
    for _ in range(20):
        assert parser.feed(piece).texts == []
    assert len(parser._pieces) == 1
    assert parser.feed(client_frame(0, b"b")).texts == [b"ab"]


def test_a_message_over_the_bound_is_too_big_in_one_piece_and_in_many():
    for data in (
        client_frame(1, b"x" * (FRAME_MAX + 1)),
        client_frame(1, b"x" * 4000, fin=False) + client_frame(0, b"x" * 97),
    ):
        socket = Recorder()
        socket.data_received(data)
        assert socket.hub_.codes == [1009] and socket.texts == []
    socket = Recorder()
    socket.data_received(client_frame(1, b"x" * FRAME_MAX))
    assert socket.texts == [b"x" * FRAME_MAX] and socket.state == OPEN


def test_the_end_of_a_cut_frame_after_our_close_is_still_understood():
    cut = client_frame(1, b"y" * 200)
    socket = Recorder()
    socket.data_received(cut[:100])
    socket.close(4000, "ping timeout")
    socket.data_received(cut[100:])
    assert socket.state == CLOSING, "the rest of a frame is no protocol error"
    socket.data_received(client_frame(8, pack("!H", 4000)))
    assert socket.state == ENDING
    assert socket.pipe.text == frames.close_frame(4000, "ping timeout"), "one close frame, and nothing after it"


def test_answers_to_one_that_does_not_read_are_bounded():
    socket = Recorder()
    socket.pause_writing()
    for _ in range(7):
        socket.data_received(client_frame(9, b"x" * 125))
    assert not socket.hub_.slow
    socket.data_received(client_frame(9, b"x" * 125))
    assert socket.hub_.slow
    fine = Recorder()
    for _ in range(20):
        fine.pause_writing()
        fine.data_received(client_frame(9, b"x" * 125))
        fine.resume_writing()
    assert not fine.hub_.slow


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_may_not_be_sent_is_a_protocol_error(code):
    socket = Recorder()
    socket.data_received(client_frame(8, pack("!H", code)))
    assert socket.hub_.codes == [1002]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 3999, 4002, 4500, 4999])
def test_a_close_is_echoed_and_what_the_client_chose_is_not_taken_for_ours(code):
    socket = Recorder()
    socket.data_received(client_frame(8, pack("!H", code) + b"bye"))
    assert socket.pipe.text == frames.close_frame(code, "bye")
    assert socket.hub_.codes == [min(code, 3000)]
