"""Encoding of a message, once, at the helper: type `t` text, `j` compact JSON, `b` bytes.
Servers never look into a payload; they only know its type."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from typing import NamedTuple

from ..errors import MessageError

__all__ = ["BYTES", "JSON", "TEXT", "Payload", "check_size", "encode_message", "make_key", "message_id"]

TEXT, JSON, BYTES = "t", "j", "b"


class Payload(NamedTuple):
    """An encoded message: its type letter and its bytes."""

    type: str
    data: bytes


def encode_message(message: object) -> Payload:
    """Encode a message as the contract says: str as it is, bytes as they are, anything else as compact JSON.

    Raises MessageError when it can't be encoded (NaN, lone surrogates, foreign types, too deep). `check_size` has
    the last word.
    """
    if isinstance(message, str):
        kind = TEXT
        try:
            data = message.encode()
        except UnicodeEncodeError:
            raise MessageError("message must be encodable as UTF-8: it holds a lone surrogate") from None
    elif isinstance(message, bytes | bytearray | memoryview):
        kind, data = BYTES, bytes(message)
    else:
        kind = JSON
        try:
            data = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise MessageError("message must be encodable as UTF-8: it holds a lone surrogate") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageError(f"message can't be encoded as JSON: {error}") from None
    return Payload(kind, data)


def check_size(payload: Payload, max_bytes: int) -> None:
    """Raise MessageError when an encoded message is larger than the cluster's limit."""
    if len(payload.data) > max_bytes:
        raise MessageError(f"message must be at most {max_bytes} bytes long once encoded, not {len(payload.data)}")


def make_key() -> str:
    """A random idempotency key, for sends that bring none."""
    return secrets.token_urlsafe(16)


def message_id(sender: str, idempotency_key: str) -> str:
    """The id of a message: 22 characters derived from sender and key, so that a retry finds the same one."""
    digest = hashlib.sha256(f"{len(sender)}:{sender}{idempotency_key}".encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
