"""Where Redis is and how to log in, read out of a URL: one server, Sentinel or Redis Cluster, plain or TLS.
Pure: nothing here connects. Secrets are kept out of every repr and error text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from ..errors import SettingError

__all__ = ["Address", "Credential", "RedisConfig", "parse_redis_url"]

Credential = str | Callable[[], str | None] | None
Kind = Literal["single", "sentinel", "cluster"]

# scheme -> (kind, TLS)
_SCHEMES: dict[str, tuple[Kind, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "unix": ("single", False),
    "sentinel": ("sentinel", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "cluster": ("cluster", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_TLS_SCHEMES: dict[Kind, str] = {"single": "rediss", "sentinel": "rediss+sentinel", "cluster": "rediss+cluster"}
_DEFAULT_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_OPTIONS = (
    "db",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "sentinel_username",
    "sentinel_password",
)
_CERT_REQS = ("none", "optional", "required")


class Address(NamedTuple):
    """Where one Redis process listens: a host and a port, or a unix socket's path with port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """How to reach and log in to Redis; made by `parse_redis_url`.

    `addresses` are the server itself (single), the Sentinels, or some nodes of the Cluster. `service` is the
    name that Sentinel monitors. TLS files are paths, read again at each connection, and so is a callable password.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    db: int = 0
    service: str = ""
    tls: bool = False
    username: Credential = field(default=None, repr=False)
    password: Credential = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: str = "required"
    ssl_check_hostname: bool = True

    def credentials(self) -> tuple[str | None, str | None]:
        """User name and password as they are now; a callable is asked again at each call."""
        return _now(self.username), _now(self.password)

    def describe(self) -> str:
        """The addresses for a log line or an error text, without secrets."""
        where = ",".join(map(str, self.addresses))
        return f"{where} (Sentinel, {self.service})" if self.kind == "sentinel" else where


def _now(value: Credential) -> str | None:
    found: object = value() if callable(value) else value
    if found is not None and not isinstance(found, str):
        if inspect.iscoroutine(found):
            found.close()
        raise TypeError(f"a callable for the login must return a str, not {type(found).__name__}")
    return found or None


def _check_credential(what: str, value: object) -> None:
    if value is not None and not isinstance(value, str) and not callable(value):
        raise SettingError(f"{what} must be a str or a callable that returns one, not {type(value).__name__}")


def parse_redis_url(
    url: str,
    *,
    username: Credential = None,
    password: Credential = None,
    ssl_ca_certs: str | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
) -> RedisConfig:
    """Read a Redis URL.

    Forms: `redis[s]://[user:password@]host[:port][/db]`, `unix://[user:password@]/path/to.sock[?db=N]`,
    `redis[s]+sentinel://[user:password@]host[:port],…/SERVICE[/db]`, `redis[s]+cluster://[user:password@]host[:port],…`.
    `valkey`, `valkeys`, `sentinel` and `cluster` are accepted as schemes too. The keyword arguments win over what the
    URL says. Options of the query: those of redis-py for TLS (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_cert_reqs`, `ssl_check_hostname`), `db`, and the Sentinels' own `sentinel_username` and `sentinel_password`.

    Raises SettingError, also for options of TLS with a scheme that has none. It never quotes the URL, which may hold a
    password.
    """
    if not isinstance(url, str):
        raise SettingError(f"redis_url must be a str, not {type(url).__name__}")
    _check_credential("username", username)
    _check_credential("password", password)
    scheme, found, rest = url.strip().partition("://")
    if not found or scheme.lower() not in _SCHEMES:
        raise SettingError(f"redis_url must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
    kind, tls = _SCHEMES[scheme.lower()]
    rest, _, query = rest.partition("?")
    options = _options(query)
    netloc, slash, path = rest.partition("/")
    user_info, _, hosts = netloc.rpartition("@")
    url_user, _, url_password = user_info.partition(":")
    if scheme.lower() == "unix":
        if hosts or not path:
            raise SettingError("redis_url must name a socket with an absolute path: unix:///path/to.sock")
        addresses: tuple[Address, ...] = (Address(slash + unquote(path), 0),)
        service, db = "", ""
    else:
        addresses = _addresses(hosts, kind)
        service, db = _path(path, kind)
    if kind == "cluster" and (db or options.get("db", "0")) not in ("", "0"):
        raise SettingError("redis_url must not name a database: Redis Cluster has only one")
    cert_reqs = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if cert_reqs not in _CERT_REQS:
        raise SettingError(f"redis_url: ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
    files = {
        "ssl_ca_certs": ssl_ca_certs or options.get("ssl_ca_certs"),
        "ssl_certfile": ssl_certfile or options.get("ssl_certfile"),
        "ssl_keyfile": ssl_keyfile or options.get("ssl_keyfile"),
    }
    given = [name for name in _OPTIONS if name.startswith("ssl_") and (files.get(name) or name in options)]
    if given and not tls:
        # Who names certificates believes that nobody else reads along.
        raise SettingError(f"{given[0]} needs TLS: redis_url must begin with {_TLS_SCHEMES[kind]}://")
    return RedisConfig(
        kind=kind,
        addresses=addresses,
        db=_number("db", options.get("db") or db or "0"),
        service=service,
        tls=tls,
        username=username or unquote(url_user) or None,
        password=password or unquote(url_password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        **files,
        ssl_cert_reqs=cert_reqs,
        ssl_check_hostname=cert_reqs != "none"
        and options.get("ssl_check_hostname", "true").lower() in ("true", "1", "yes"),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown and "@" in query:
        # What stands here may be the end of a password, and is not quoted.
        raise SettingError("redis_url: a '?' in the user name or the password must be written as %3F")
    if unknown:
        raise SettingError(f"redis_url: unknown option {unknown[0]!r}; known are {', '.join(_OPTIONS)}")
    return options


def _addresses(hosts: str, kind: Kind) -> tuple[Address, ...]:
    found = []
    for part in hosts.split(","):
        host, port = part, ""
        if part.startswith("["):
            host, closing, after = part[1:].partition("]")
            if not closing or (after and not after.startswith(":")):
                raise SettingError("redis_url must close an IPv6 address with ']'")
            port = after[1:]
        elif ":" in part:
            host, _, port = part.rpartition(":")
        number = _number("port", port) if port else _DEFAULT_PORTS[kind]
        if not 1 <= number <= 65535:
            raise SettingError("redis_url: port must be 1 to 65535")
        if not host and len(hosts) > len(part):
            raise SettingError("redis_url must not hold an empty host")
        found.append(Address(unquote(host) or "localhost", number))
    if kind == "single" and len(found) > 1:
        raise SettingError("redis_url must name one host; several need redis+sentinel:// or redis+cluster://")
    return tuple(found)


def _path(path: str, kind: Kind) -> tuple[str, str]:
    """The service and the database out of the URL's path."""
    parts = [unquote(p) for p in path.split("/") if p]
    if kind == "sentinel":
        if not 1 <= len(parts) <= 2:
            raise SettingError(
                "redis_url must name the service that Sentinel monitors: redis+sentinel://host/SERVICE[/db]"
            )
        return parts[0], parts[1] if len(parts) > 1 else ""
    if len(parts) > 1:
        raise SettingError("redis_url must have at most a database number as its path")
    return "", parts[0] if parts else ""


def _number(what: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise SettingError(f"redis_url: {what} must be a number")
    return int(text)
