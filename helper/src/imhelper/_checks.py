"""Checks of arguments that only the helper takes, the same in both forms and in the fake.
Ids, metadata and receivers are checked in core.ids, messages in core.payload."""

from __future__ import annotations

from .core.ids import check_id
from .errors import SettingError

__all__ = [
    "check_avoid",
    "check_callback",
    "check_group",
    "check_reason",
    "check_timeout",
    "check_token_ttl",
    "with_token",
]

REASON_MAX_BYTES = 123
TOKEN_TTL_MAX = 3600


def check_avoid(value: object) -> str | None:
    """Return `value` if it may name a server (by its name or a URL) or nothing, else raise SettingError."""
    if value is not None and not isinstance(value, str):
        raise SettingError(f"avoid must be a server's name or URL as a str, or None, not {type(value).__name__}")
    return value


def check_callback(what: str, value: object) -> None:
    """Raise SettingError unless `value` can be called: later there would only be a log line for each event."""
    if not callable(value):
        raise SettingError(f"{what} must be callable, not {type(value).__name__}")


def check_group(value: object) -> str:
    """Return `value` if it is a legal name of a consumer group: the rules of a channel's name."""
    return check_id("group", value)


def check_reason(value: object) -> str:
    """Return `value` if it fits into a close frame (RFC 6455, section 5.5.1), else raise SettingError."""
    if not isinstance(value, str):
        raise SettingError(f"reason must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SettingError("reason must be encodable as UTF-8: it holds a lone surrogate") from None
    if size > REASON_MAX_BYTES:
        raise SettingError(f"reason must be at most {REASON_MAX_BYTES} UTF-8 bytes long, not {size}")
    return value


def check_timeout(value: object) -> float:
    """Return `value` in seconds if it is a positive number, else raise SettingError."""
    return _number("timeout", value, 3600)


def check_token_ttl(value: object) -> float:
    """Return `value` in seconds if tokens may live that long, else raise SettingError."""
    return _number("token_ttl", value, TOKEN_TTL_MAX)


def _number(what: str, value: object, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= highest:
        raise SettingError(f"{what} must be a number of seconds from 0.001 to {highest}, not {value!r}")
    return float(value)


def with_token(url: str, token: str) -> str:
    """A server's URL with the token in its query."""
    return f"{url}{'&' if '?' in url else '?'}token={token}"
