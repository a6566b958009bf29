"""Finding the way to Redis: the primary behind Sentinel, the nodes of a Cluster, or just the one address.
Generated from _backend/_discover_aio.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import ResponseError

from ..core.redis_url import Address, RedisConfig
from ._connect_blocking import ask, drop, open_connection
from .common import ConnectionLost, Routes, parse_cluster_slots, parse_info

__all__ = ["discover"]


def discover(
    config: RedisConfig, prefix: str, clustered: bool | None, known: Iterable[Address], patience: float
) -> tuple[Routes, bool]:
    """Ask for the routes, and whether this is a Redis Cluster where that is not known yet (`clustered` None).

    `known` are nodes seen before: they come first, as the seeds of the URL may be gone since. Each wait lasts at
    most `patience` seconds. Raises what redis-py raises.
    """
    if config.kind == "sentinel":
        return _everywhere(prefix, _ask_sentinels(config, patience)), False
    if clustered is False:
        return _everywhere(prefix, config.addresses[0]), False
    failure: BaseException = ConnectionError("no address to ask")
    for address in dict.fromkeys((*known, *config.addresses)):
        try:
            return _ask_node(config, prefix, clustered, address, patience)
        except ConnectionLost as error:
            failure = error
    raise failure


def _everywhere(prefix: str, address: Address) -> Routes:
    return Routes(prefix, [(0, 16383, address)])


def _ask_node(
    config: RedisConfig, prefix: str, clustered: bool | None, address: Address, patience: float
) -> tuple[Routes, bool]:
    connection = open_connection(config, address, patience)
    try:
        if clustered is None:
            try:
                clustered = parse_info(ask(connection, patience, "INFO", "cluster")).get("cluster_enabled") == "1"
            except ResponseError:
                # Not allowed to ask: then the URL's form decides, and a MOVED tells if it is wrong.
                clustered = False
        if not clustered:
            return _everywhere(prefix, address), False
        return Routes(prefix, parse_cluster_slots(ask(connection, patience, "CLUSTER", "SLOTS"), address)), True
    finally:
        drop(connection)


def _ask_sentinels(config: RedisConfig, patience: float) -> Address:
    failure: BaseException = ConnectionError(f"no Sentinel knows a primary for {config.service!r}")
    for address in config.addresses:
        try:
            connection = open_connection(config, address, patience, sentinel=True)
            try:
                found = ask(connection, patience, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", config.service)
            finally:
                drop(connection)
        except ConnectionLost as error:
            failure = error
            continue
        if found:
            return Address(found[0].decode(), int(found[1]))
    raise failure
