"""Finding the way to Redis: the primary behind Sentinel, the nodes of a Cluster, or just the one address.
Generated from _backend/_discover_aio.py by tools/unasync.py: change that file, not this one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from redis.exceptions import ResponseError

from ..core.redis_url import Address, RedisConfig
from ._connect_blocking import ask, drop, open_connection
from .common import ConnectionLost, Routes, parse_cluster_slots, parse_info

__all__ = ["Way", "discover"]


class Way(NamedTuple):
    """The routes, whether they are those of a Redis Cluster, and which server told."""

    routes: Routes
    clustered: bool
    told_by: Address | None


def discover(config: RedisConfig, prefix: str, clustered: bool | None, known: Iterable[Address], seconds: float) -> Way:
    """Ask for the routes, and whether this is a Redis Cluster where that is not known yet (`clustered` None).

    `known` are servers seen before: they come first, as the seeds of the URL may be gone since, or silent. Each gets a
    share of `seconds`, so that those that stay silent leave time for the others, and for what is to be asked then.
    Raises what redis-py raises.
    """
    if config.kind == "sentinel":
        first = [address for address in known if address in config.addresses]
        return _ask_sentinels(config, prefix, _shares([*first, *config.addresses], seconds))
    if clustered is False:
        return Way(_everywhere(prefix, config.addresses[0]), False, None)
    failure: BaseException = ConnectionError("no address to ask")
    for address, patience in _shares([*known, *config.addresses], seconds):
        try:
            return _ask_node(config, prefix, clustered, address, patience)
        except ConnectionLost as error:
            failure = error
    raise failure


def _shares(addresses: Iterable[Address], seconds: float) -> Iterator[tuple[Address, float]]:
    """Each address once, and how many seconds it may take; what one leaves is the others'."""
    deadline = time.monotonic() + seconds
    each = list(dict.fromkeys(addresses))
    for left, address in zip(range(len(each), 0, -1), each, strict=True):
        yield address, max(0.05, (deadline - time.monotonic()) / (left + 1))


def _everywhere(prefix: str, address: Address) -> Routes:
    return Routes(prefix, [(0, 16383, address)])


def _ask_node(config: RedisConfig, prefix: str, clustered: bool | None, address: Address, patience: float) -> Way:
    connection = open_connection(config, address, patience)
    try:
        if clustered is None:
            try:
                clustered = parse_info(ask(connection, patience, "INFO", "cluster")).get("cluster_enabled") == "1"
            except ResponseError:
                # Not allowed to ask: then the URL's form decides, and a MOVED tells if it is wrong.
                clustered = False
        if not clustered:
            return Way(_everywhere(prefix, address), False, address)
        ranges = parse_cluster_slots(ask(connection, patience, "CLUSTER", "SLOTS"), address)
        return Way(Routes(prefix, ranges), True, address)
    finally:
        drop(connection)


def _ask_sentinels(config: RedisConfig, prefix: str, shares: Iterable[tuple[Address, float]]) -> Way:
    failure: BaseException = ConnectionError(f"no Sentinel knows a primary for {config.service!r}")
    for address, patience in shares:
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
            return Way(_everywhere(prefix, Address(found[0].decode(), int(found[1]))), False, address)
    raise failure
