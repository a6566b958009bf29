"""The rules for client ids, channels and prefixes, in one place.
Every public call checks its arguments here before it touches Redis."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ..errors import InvalidIdError, SettingError

__all__ = [
    "ID_MAX_BYTES",
    "METADATA_MAX_BYTES",
    "check_chan",
    "check_client",
    "check_id",
    "check_metadata",
    "check_prefix",
    "unique",
]

ID_MAX_BYTES = 128
METADATA_MAX_BYTES = 4096


def check_id(what: str, value: object) -> str:
    """Return `value` if it may name something, else raise InvalidIdError that calls it `what`."""
    if not isinstance(value, str):
        raise InvalidIdError(f"{what} must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidIdError(f"{what} {value!r} must be encodable as UTF-8: it holds a lone surrogate") from None
    if not 1 <= size <= ID_MAX_BYTES:
        raise InvalidIdError(f"{what} must be 1 to {ID_MAX_BYTES} UTF-8 bytes long, not {size}")
    if not value.isprintable() and any(unicodedata.category(c) == "Cc" for c in value):
        raise InvalidIdError(f"{what} {value!r} must not hold control characters")
    return value


def check_client(value: object) -> str:
    """Return `value` if it is a legal client id, else raise InvalidIdError (contract part 1)."""
    return check_id("client_id", value)


def check_chan(value: object) -> str:
    """Return `value` if it is a legal channel name, else raise InvalidIdError."""
    return check_id("chan", value)


def check_prefix(value: object) -> str:
    """Return `value` if it is a legal prefix: an id without braces, which would break Redis Cluster's hash tags."""
    prefix = check_id("prefix", value)
    if "{" in prefix or "}" in prefix:
        raise InvalidIdError(f"prefix {prefix!r} must not hold braces")
    return prefix


def check_metadata(value: object) -> str:
    """Return `value` if it is a str of at most 4 KiB UTF-8, else raise SettingError."""
    if not isinstance(value, str):
        raise SettingError(f"metadata must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SettingError("metadata must be encodable as UTF-8: it holds a lone surrogate") from None
    if size > METADATA_MAX_BYTES:
        raise SettingError(f"metadata must be at most {METADATA_MAX_BYTES} UTF-8 bytes long, not {size}")
    return value


def unique(receivers: str | Iterable[str]) -> list[str]:
    """The receivers of a send, checked, in order, each once. One id or an iterable of ids."""
    if isinstance(receivers, str):
        return [check_client(receivers)]
    if isinstance(receivers, bytes | bytearray):
        raise InvalidIdError("receivers must be a str or an iterable of str, not bytes")
    try:
        iterator = iter(receivers)
    except TypeError:
        raise InvalidIdError(f"receivers must be a str or an iterable of str, not {type(receivers).__name__}") from None
    return list(dict.fromkeys(check_client(r) for r in iterator))
