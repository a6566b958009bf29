"""Opening one asyncio connection of redis-py, and one question over it.
Its blocking twin has the same names; what is generated for both builds on them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..core.redis_url import Address, RedisConfig
from .common import Arg, connection_settings, pack

__all__ = ["RawConnection", "ask", "drop", "exchange", "open_connection"]

# A connection of redis-py. Its own types differ between the releases that are supported.
RawConnection: TypeAlias = Any

_CLASSES: dict[str, Any] = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


async def open_connection(
    config: RedisConfig, address: Address, patience: float, *, sentinel: bool = False
) -> RawConnection:
    """Connect and log in within `patience` seconds; credentials and TLS files are read now.

    Raises what redis-py raises, and RedisUnavailableError when the credentials can't be had.
    """
    kind, settings = connection_settings(config, address, sentinel=sentinel, connect_timeout=patience)
    connection = _CLASSES[kind](socket_timeout=None, retry=Retry(NoBackoff(), 0), **settings)
    try:
        async with asyncio.timeout(patience):
            await connection.connect()
    except BaseException:
        await drop(connection)
        raise
    return connection


async def ask(connection: RawConnection, patience: float | None, *args: Arg) -> Any:
    """Send one command and read its raw reply within `patience` seconds. Raises what redis-py raises."""
    return await exchange(connection, patience, pack(args))


async def exchange(connection: RawConnection, patience: float | None, packed: bytes) -> Any:
    """As `ask`, with a command that is packed already."""
    async with asyncio.timeout(patience):
        await connection.send_packed_command([packed], check_health=False)
        return await connection.read_response(disable_decoding=True)


async def drop(connection: RawConnection) -> None:
    """Close without waiting for the peer. Safe to repeat."""
    # A TLS transport would wait up to 30 s for the peer's goodbye, longer than the event loop may live.
    writer = getattr(connection, "_writer", None)
    await connection.disconnect(nowait=True)
    if writer is not None:
        writer.transport.abort()
