"""What both backends share, without any I/O: calls, their wire form, routes, and what an error means.
The only place that knows how redis-py's errors differ between its releases."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from hiredis import pack_command
from redis import exceptions as rx
from redis.crc import key_slot

from ..core.keys import global_tag, group_tag
from ..core.redis_url import Address, RedisConfig
from ..core.scripts import Script
from ..errors import ImError, RedisUnavailableError

__all__ = [
    "SENTINEL_SECONDS",
    "Arg",
    "Call",
    "ConnectionLost",
    "Routes",
    "Verdict",
    "backoff",
    "connection_settings",
    "judge",
    "may_pass",
    "pack",
    "parse_cluster_slots",
    "parse_info",
    "policy_of",
    "redirect_of",
    "refused",
    "tag_of",
    "unanswered",
]

Arg = str | bytes | int
# How often Sentinel is asked for the primary while calls are made. One that was replaced does not say so, and takes for
# ten seconds and more what will be lost.
SENTINEL_SECONDS = 1.0
ConnectionLost = (rx.ConnectionError, rx.TimeoutError, rx.InvalidResponse, OSError, EOFError)


class Call(NamedTuple):
    """One command, or one call of a script when `script` is set; `group` None means the global tag."""

    group: int | None
    args: tuple[Arg, ...]
    script: Script | None = None

    def __repr__(self) -> str:
        # Its arguments may hold a token, or what people write to each other.
        what = f"script {self.script.name}" if self.script else str(self.args[0])
        return f"<Call of {what} for group {self.group}>"

    def command(self, prefix: str) -> tuple[Arg, ...]:
        """The command as it goes over the wire."""
        if self.script is None:
            return self.args
        return ("EVALSHA", self.script.sha, 1, tag_of(prefix, self.group), *self.args)


def tag_of(prefix: str, group: int | None) -> str:
    """The hash tag of a group, or the global one."""
    return global_tag(prefix) if group is None else group_tag(prefix, group)


def pack(args: Iterable[Arg]) -> bytes:
    """A command in RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    # Its stub takes a command for a tuple of one word. In Python this was a third of the CPU of a send.
    packed: bytes = pack_command(tuple(args))  # type: ignore[arg-type]
    return packed


class Verdict(Enum):
    """What to do about an error that came instead of a reply."""

    WAIT = "repeat it after a pause"
    ELSEWHERE = "this server is no longer the primary: look for it again, then repeat"
    LOAD = "load the script, then repeat"
    MOVED = "repeat it at the address that the error names, and read the routes again"
    REFUSED = "tell the caller at once"


_CODES: tuple[tuple[type[Exception], str], ...] = (
    (rx.MovedError, "MOVED"),
    (rx.AskError, "ASK"),
    (rx.NoScriptError, "NOSCRIPT"),
    (rx.ReadOnlyError, "READONLY"),
    (rx.MasterDownError, "MASTERDOWN"),
    (rx.ClusterDownError, "CLUSTERDOWN"),
    (rx.TryAgainError, "TRYAGAIN"),
    (rx.BusyLoadingError, "LOADING"),
    (rx.OutOfMemoryError, "OOM"),
    (rx.NoPermissionError, "NOPERM"),
    (rx.AuthenticationError, "NOAUTH"),
    (rx.AuthenticationWrongNumberOfArgsError, "NOAUTH"),
    (rx.ClusterCrossSlotError, "CROSSSLOT"),
)
_VERDICTS = {
    "MOVED": Verdict.MOVED,
    # A slot is being moved key by key. The other node would run a script without the keys that are still here, and
    # what it wrote there would take the place of what comes after it.
    "ASK": Verdict.WAIT,
    "NOSCRIPT": Verdict.LOAD,
    "READONLY": Verdict.ELSEWHERE,
    "MASTERDOWN": Verdict.WAIT,
    "CLUSTERDOWN": Verdict.WAIT,
    "TRYAGAIN": Verdict.WAIT,
    "LOADING": Verdict.WAIT,
    "BUSY": Verdict.WAIT,
    "NOREPLICAS": Verdict.WAIT,
}
_SENTENCES = {
    "OOM": "Redis is out of memory (maxmemory is reached) and refuses writes",
    "NOAUTH": "Redis refused the login: the user name or the password is wrong or missing",
    "NOPERM": "Redis refused a command: the user lacks a permission in its ACL",
    "MISCONF": "Redis refuses writes because it can't save to its disk",
    "CROSSSLOT": "this is a Redis Cluster, and a key belongs to another of its slots",
}


def _code(error: BaseException) -> str:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    word = str(error).partition(" ")[0]
    if word in ("WRONGPASS", "NOAUTH") or "without any password configured" in str(error):
        return "NOAUTH"
    return word


def judge(error: BaseException) -> Verdict:
    """What an error reply means for the call that got it."""
    return _VERDICTS.get(_code(error), Verdict.REFUSED)


def may_pass(error: BaseException) -> bool:
    """Whether it makes sense to try again after an error while connecting: yes unless the login was refused."""
    if isinstance(error, ConnectionLost):
        return _code(error) not in ("NOAUTH", "NOPERM")
    return isinstance(error, rx.RedisError) and judge(error) in (Verdict.WAIT, Verdict.ELSEWHERE)


def refused(error: BaseException) -> ImError:
    """The error that a caller gets at once for what can't pass, without the arguments that Redis may quote in it."""
    if isinstance(error, ImError):
        return error
    _without_arguments(error)
    code = _code(error)
    sentence = _SENTENCES.get(code, "Redis refused a command")
    made = RedisUnavailableError(f"{sentence} ({str(error)[:300]})")
    made.__cause__ = error
    return made


def _without_arguments(error: BaseException) -> None:
    """Cut off what Redis quotes of a command that it does not know: a password or a token may be in it."""
    text, quote, _ = str(error).partition("with args beginning with:")
    if quote:
        error.args = (text.rstrip(" ,"),)


def unanswered(config: RedisConfig, timeout: float, error: BaseException | None) -> RedisUnavailableError:
    """The error for a call that got no usable reply in time."""
    made = RedisUnavailableError(f"Redis at {config.describe()} did not answer within {timeout:g} s{_reason(error)}")
    made.__cause__ = error
    return made


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    # Early releases of redis-py drop the text of a TLS error; the error itself is still there as the context.
    below = error.__cause__ or error.__context__
    text = str(below) if isinstance(below, ssl.SSLError) else str(error)
    return f": {text}" if text else ""


def backoff(failures: int) -> float:
    """Seconds to wait before the next try: none at first, then doubling from 25 ms to 1 s with full jitter."""
    if failures <= 0:
        return 0.0
    return min(1.0, 0.025 * 2.0 ** min(failures, 8)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def redirect_of(error: BaseException, asked: Address) -> Address:
    """The address that a MOVED error names; an empty host there means the host that was asked."""
    words = str(error).split()
    host, _, port = words[-1].rpartition(":")
    return Address(host.strip("[]") or asked.host, int(port))


def parse_info(raw: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def policy_of(reply: Any) -> str | None:
    """`maxmemory_policy` out of the reply to INFO memory, or None when that was not allowed or not answered."""
    return parse_info(reply).get("maxmemory_policy") if isinstance(reply, bytes) else None


class Routes:
    """Which address serves a group: always the same one, or by the slot ranges of a Redis Cluster."""

    def __init__(self, prefix: str, ranges: Sequence[tuple[int, int, Address]]) -> None:
        self._prefix = prefix
        self._ranges = ranges
        self._known: dict[int | None, Address] = {}

    def address(self, group: int | None) -> Address | None:
        """The address for a group, or None when no node serves its hash slot at the moment."""
        found = self._known.get(group)
        if found is None:
            slot = key_slot(tag_of(self._prefix, group).encode())
            found = next((a for low, high, a in self._ranges if low <= slot <= high), None)
            if found is not None:
                self._known[group] = found
        return found


def parse_cluster_slots(reply: Any, asked: Address) -> list[tuple[int, int, Address]]:
    """Slot ranges and their primaries out of CLUSTER SLOTS (https://redis.io/docs/latest/commands/cluster-slots/)."""
    ranges = []
    for low, high, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else ""
        ranges.append((int(low), int(high), Address(asked.host if host in ("", "?") else host, int(primary[1]))))
    return ranges


def connection_settings(
    config: RedisConfig, address: Address, *, sentinel: bool, connect_timeout: float
) -> tuple[str, dict[str, Any]]:
    """Which of redis-py's connection classes to use, and its arguments; credentials are asked for now.

    The class is named `tcp`, `tls` or `unix`; the two backends map it to their own form.
    """
    if sentinel:
        username, password = config.sentinel_username, config.sentinel_password
    else:
        try:
            username, password = config.credentials()
        except OSError:
            raise
        except Exception as error:
            raise RedisUnavailableError(f"the credentials for Redis could not be had: {error!r}") from error
    settings: dict[str, Any] = {
        "username": username,
        "password": password,
        "db": 0 if sentinel else config.db,
        "socket_connect_timeout": connect_timeout,
        "protocol": 2,
        "health_check_interval": 0,
    }
    if not address.port:
        return "unix", {**settings, "path": address.host}
    settings.update(host=address.host, port=address.port, socket_keepalive=True)
    if not config.tls:
        return "tcp", settings
    return "tls", {
        **settings,
        "ssl_ca_certs": config.ssl_ca_certs,
        "ssl_certfile": config.ssl_certfile,
        "ssl_keyfile": config.ssl_keyfile,
        "ssl_cert_reqs": config.ssl_cert_reqs,
        "ssl_check_hostname": config.ssl_check_hostname,
    }
