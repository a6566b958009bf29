"""Opening one blocking connection of redis-py, and one question over it.
Its asyncio twin has the same names; what is generated for both builds on them."""

from __future__ import annotations

from typing import Any, TypeAlias

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from ..core.redis_url import Address, RedisConfig
from .common import Arg, connection_settings, pack

__all__ = ["RawConnection", "ask", "drop", "limit", "open_connection"]

# A connection of redis-py. Its own types differ between the releases that are supported.
RawConnection: TypeAlias = Any

_CLASSES: dict[str, Any] = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


def open_connection(
    config: RedisConfig,
    address: Address,
    patience: float,
    *,
    sentinel: bool = False,
    reply_timeout: float | None = None,
) -> RawConnection:
    """Connect and log in; then, and for each reply later (unless `reply_timeout` is given), wait at most `patience` s.

    Credentials and TLS files are read now. Raises what redis-py raises, and RedisUnavailableError when the
    credentials can't be had.
    """
    kind, settings = connection_settings(config, address, sentinel=sentinel, connect_timeout=patience)
    connection = _CLASSES[kind](socket_timeout=reply_timeout or patience, retry=Retry(NoBackoff(), 0), **settings)
    try:
        connection.connect()
    except BaseException:
        drop(connection)
        raise
    return connection


def ask(connection: RawConnection, patience: float | None, *args: Arg) -> Any:
    """Send one command and read its raw reply. Raises what redis-py raises.

    `patience` is what the connection was opened with: a blocking connection has one limit for all its waits.
    """
    connection.send_packed_command([pack(args)], check_health=False)
    return connection.read_response(disable_decoding=True)


def limit(connection: RawConnection, seconds: float) -> None:
    """From now on wait at most `seconds` for the peer, in each send and each read."""
    # What was dropped by redis-py has no socket, and says so when it is used.
    if connection._sock is not None:
        connection._sock.settimeout(max(0.001, seconds))


def drop(connection: RawConnection) -> None:
    """Close. Safe to repeat."""
    connection.disconnect()
