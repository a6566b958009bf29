"""Log entries as XREAD and XRANGE give them, and the frames that clients see of them.
Pure and on the hot path: a frame is built once an entry and mode, whoever receives it."""

from __future__ import annotations

from base64 import b64encode
from json import dumps
from json.encoder import encode_basestring
from typing import Any

from . import frames

__all__ = ["hello", "message_frame", "move", "number", "plain_message", "plain_receipt", "pong", "receipt_frames"]

# An entry is [id, fields]; fields is flat: name, value, ... The first name is the kind. Values by place:
#   message   m ID  f SENDER  t TYPE  r RECEIPT  c RECEIVERS  p PAYLOAD
#   channel   c ID  f SENDER  t TYPE  h CHAN  p PAYLOAD
#   receipts  r ID  f RECEIVERS  c SENDER  s d|o  t TYPE  p PAYLOAD
#   join      j CHAN  c CLIENT        leave  l CHAN  c CLIENTS
#   evict     e SID  c CLIENT         disconnect  d CLIENT  s REASON
Fields = list[bytes]


def _text(raw: bytes) -> bytes:
    """A JSON string, as bytes, of UTF-8 text: what `dumps(…, ensure_ascii=False)` gives, without its 1 µs around it."""
    return encode_basestring(raw.decode()).encode()


def number(entry_id: bytes) -> int:
    """The dense number of an entry: the part of its id after the dash."""
    return int(entry_id[entry_id.index(b"-") + 1 :])


def _data(kind: bytes, payload: bytes) -> bytes:
    if kind == b"j":
        return payload
    if kind == b"t":
        return _text(payload)
    return b'"' + b64encode(payload) + b'"'


def plain_message(kind: bytes, payload: bytes) -> bytes:
    """The frame of plain mode: the payload and nothing else."""
    return frames.frame(frames.BINARY if kind == b"b" else frames.TEXT, payload)


def plain_receipt(fields: Fields) -> bytes:
    """A receipt in plain mode, as ImCore's clients know it. It names no receiver: those of an entry are the same."""
    status = b"delivered" if fields[7] == b"d" else b"user not online"
    body = b'{"content":' + _data(fields[9], fields[11]) + b',"receipt":"' + status + b'"}'
    return frames.frame(frames.TEXT, body)


def message_frame(pos: bytes, fields: Fields) -> bytes:
    """A `msg` of envelope mode, for an entry of kind message or channel."""
    chan, kind, payload = b"", fields[5], fields[-1]
    if fields[0] == b"c":
        chan = b',"chan":' + _text(fields[7])
    tail = b',"b64":true}' if kind == b"b" else b"}"
    head = b'{"t":"msg","id":"' + fields[1] + b'","pos":"' + pos + b'","from":' + _text(fields[3])
    return frames.frame(frames.TEXT, head + chan + b',"data":' + _data(kind, payload) + tail)


def receipt_frames(before: bytes, pos: bytes, fields: Fields) -> bytes:
    """The `receipt`s of an entry in envelope mode, one a receiver.

    The last one alone has the entry's own position: a client that comes back from between two gets the rest.
    """
    head = b'{"t":"receipt","id":"' + fields[1] + b'","to":'
    tail = b',"status":"' + (b"delivered" if fields[7] == b"d" else b"offline") + b'","pos":"'
    *others, last = fields[3].split(b"\n")
    found = [frames.frame(frames.TEXT, head + _text(to) + tail + before + b'"}') for to in others]
    return b"".join([*found, frames.frame(frames.TEXT, head + _text(last) + tail + pos + b'"}')])


def _object(value: dict[str, Any]) -> bytes:
    return frames.frame(frames.TEXT, dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def hello(client: bytes, server: str, pos: bytes, recovered: bool, ping: float) -> bytes:
    """The first frame of envelope mode. `pos` is where the following frames start."""
    seconds = int(ping) if ping == int(ping) else ping
    return _object(
        {
            "t": "hello",
            "client": client.decode(),
            "server": server,
            "pos": pos.decode(),
            "recovered": recovered,
            "ping": seconds,
        }
    )


def pong(pos: bytes) -> bytes:
    """The answer to a client's ping: everything before `pos` was written to its socket."""
    return frames.frame(frames.TEXT, b'{"t":"pong","pos":"' + pos + b'"}')


def move(url: str, pos: bytes) -> bytes:
    """Tells a client to connect to `url` with `since=pos`."""
    return _object({"t": "move", "url": url, "pos": pos.decode()})
