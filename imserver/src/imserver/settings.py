"""The settings of imserver, read from environment variables named IM_*.
A bad value stops the start with one line that names the variable, the value and what is allowed."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from imhelper.core.ids import check_prefix
from imhelper.core.redis_url import parse_redis_url
from imhelper.core.topology import Limits, check_slots
from imhelper.errors import SettingError

__all__ = ["Settings", "load_settings", "unknown_settings"]

# Of RFC 3986 what a WebSocket's URL may hold (RFC 6455, section 3), without user and query; a host in Punycode.
_URL = re.compile(
    r"wss?://(?:[A-Za-z0-9._-]+|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*/ws"
)
_ORIGIN = re.compile(r"https?://(?:[^/\s,:?#@\[\]]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings with their defaults. Units are in the names; each field is IM_<NAME> in the environment."""

    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    redis_username: str | None = None
    redis_password_file: str | None = None
    redis_ca_file: str | None = None
    redis_cert_file: str | None = None
    redis_key_file: str | None = None
    prefix: str = "im"
    server_name: str = ""
    url: str = ""
    port: int = 6001
    admin_port: int = 9600
    max_connections: int = 18000
    max_sockets_per_client: int = 16
    max_payload_bytes: int = 65536
    ping_seconds: float = 25.0
    grace_seconds: float = 10.0
    lease_seconds: float = 5.0
    retain_seconds: float = 60.0
    retain_entries: int = 10000
    retain_bytes: int = 16777216
    buffer_bytes: int = 262144
    drain_rate: float = 200.0
    drain_timeout_seconds: float = 300.0
    log_level: str = "info"
    log_format: str = "text"
    allowed_origins: tuple[str, ...] = ()
    slots: int | None = None
    topology: str = "self"

    @property
    def limits(self) -> Limits:
        """The part that is published with the topology, for helpers and other servers."""
        return Limits(
            max_payload_bytes=self.max_payload_bytes,
            retain_seconds=self.retain_seconds,
            retain_entries=self.retain_entries,
            retain_bytes=self.retain_bytes,
            grace_seconds=self.grace_seconds,
            lease_seconds=self.lease_seconds,
            max_sockets_per_client=self.max_sockets_per_client,
        )


def _whole(low: int, high: int) -> tuple[str, Callable[[str], int]]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]+", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return f"a whole number from {low} to {high}", parse


def _number(low: float, high: float) -> tuple[str, Callable[[str], float]]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return f"a number from {low:g} to {high:.0f}", parse


def _choice(*allowed: str) -> tuple[str, Callable[[str], str]]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError
        return text.lower()

    return "one of " + ", ".join(allowed), parse


def _matching(words: str, pattern: str) -> tuple[str, Callable[[str], str]]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return words, parse


def _slots(text: str) -> int:
    if not re.fullmatch(r"[0-9]{2,4}", text):
        raise ValueError
    return check_slots(int(text))


def _origins(text: str) -> tuple[str, ...]:
    # Browsers write scheme and host in lower case (RFC 6454, section 6.1).
    origins = tuple(o.strip().lower() for o in text.split(",") if o.strip())
    for origin in (o for o in origins if o != "*"):
        found = _ORIGIN.fullmatch(origin)
        if found is None or not 1 <= int(found["port"] or 80) <= 65535:
            raise ValueError
    return () if "*" in origins else origins


def _url(text: str) -> str:
    found = _URL.fullmatch(text)
    if found is None or not 1 <= int(found["port"] or 80) <= 65535 or len(text) > 2048:
        raise ValueError
    if found["v6"]:
        IPv6Address(found["v6"])
    return text


def _file(text: str) -> str:
    with open(text, "rb"):
        return text


def _text_file(text: str) -> str:
    with open(text, encoding="utf-8") as file:
        file.read()
    return text


def _authorities(text: str) -> str:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    return text


_RULES: dict[str, tuple[str, Callable[[str], object]]] = {
    "redis_url": ("a URL", str),
    "redis_username": ("a user name", str),
    "redis_password_file": ("the path of a readable file of UTF-8", _text_file),
    "redis_ca_file": ("the path of a readable file of certificates in PEM", _authorities),
    "redis_cert_file": ("the path of a readable file", _file),
    "redis_key_file": ("the path of a readable file", _file),
    "prefix": ("1 to 128 bytes without braces and control characters", check_prefix),
    "server_name": _matching("1 to 63 letters, digits, '-', '_' or '.'", _NAME.pattern),
    "url": ("a URL like ws://host:6001/ws", _url),
    "port": _whole(1, 65535),
    "admin_port": _whole(1, 65535),
    "max_connections": _whole(1, 1000000),
    "max_sockets_per_client": _whole(1, 1000),
    "max_payload_bytes": _whole(1, 16777216),
    "ping_seconds": _number(1, 3600),
    "grace_seconds": _number(0, 3600),
    "lease_seconds": _number(1, 300),
    "retain_seconds": _number(1, 86400),
    "retain_entries": _whole(1, 10000000),
    "retain_bytes": _whole(65536, 17179869184),
    "buffer_bytes": _whole(4096, 1073741824),
    "drain_rate": _number(0.1, 1000000),
    "drain_timeout_seconds": _number(0, 86400),
    "log_level": _choice("debug", "info", "warning", "error"),
    "log_format": _choice("text", "json"),
    "allowed_origins": ("a comma-separated list of origins like https://example.org, or *", _origins),
    "slots": ("a whole number from 16 to 1024", _slots),
    "topology": _choice("self", "operator"),
}


def load_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment. An empty variable counts as absent.

    Raises SettingError with one line that names the variable, its value and what is allowed. `unknown_settings`
    tells of variables that are none.
    """
    values: dict[str, object] = {}
    for variable, text in environment.items():
        if not variable.startswith("IM_") or not text:
            continue
        name = variable[3:].lower()
        if name not in _RULES:
            continue
        allowed, parse = _RULES[name]
        try:
            # A variable that is no UTF-8 has surrogates in it.
            text.encode()
            values[name] = parse(text)
        except (ValueError, OSError):
            raise SettingError(f"{variable} must be {allowed}, not {text!r}") from None
    settings = Settings(**values)  # type: ignore[arg-type]
    try:
        redis = parse_redis_url(settings.redis_url)
    except SettingError as error:
        # It says what is wrong without the URL, which may hold a password.
        shown = _without_secrets(settings.redis_url)
        raise SettingError(f"{str(error).replace('redis_url', 'IM_REDIS_URL')}; {shown}") from None
    if settings.grace_seconds >= settings.retain_seconds:
        raise SettingError(
            f"IM_GRACE_SECONDS must be less than IM_RETAIN_SECONDS ({settings.retain_seconds:g}), "
            f"not '{settings.grace_seconds:g}'"
        )
    _check_certificates(settings, redis.tls)
    return _with_names(settings)


def _check_certificates(settings: Settings, tls: bool) -> None:
    cert, key = settings.redis_cert_file, settings.redis_key_file
    if (cert is None) != (key is None):
        raise SettingError(f"IM_REDIS_CERT_FILE and IM_REDIS_KEY_FILE must be set together, not {cert!r} and {key!r}")
    for name in ("redis_ca_file", "redis_cert_file", "redis_key_file"):
        path = getattr(settings, name)
        if path is not None and not tls:
            raise SettingError(
                f"IM_{name.upper()}, which is {path!r}, needs TLS: IM_REDIS_URL must begin with rediss:// or rediss+"
            )
    if cert is not None:
        try:
            # A key with a passphrase would be asked for on a terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: "")
        except OSError:
            raise SettingError(
                "IM_REDIS_CERT_FILE and IM_REDIS_KEY_FILE must be a certificate and its key in PEM, "
                f"not {cert!r} and {key!r}"
            ) from None


def _without_secrets(url: str) -> str:
    """What may be told of a Redis URL that could not be read: anything behind its scheme may be a password."""
    scheme, found, _ = url.partition("://")
    if found and re.fullmatch("[a-z+]{1,20}", scheme):
        return f"it begins with {scheme}://, and the rest is not shown, for it may hold a password"
    return "it is not shown, for it may hold a password"


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """Variables that begin with IM_ and are no setting: misspelt ones must not be passed over in silence."""
    return sorted(v for v in environment if v.startswith("IM_") and v[3:].lower() not in _RULES)


def _with_names(settings: Settings) -> Settings:
    host = socket.gethostname()
    name = settings.server_name
    if not name:
        candidate = f"{host}-{settings.port}"[-63:].strip("-._")
        if not _NAME.fullmatch(candidate):
            raise SettingError(f"IM_SERVER_NAME must be set: the host name {host!r} can't be used as a server's name")
        name = candidate
    url = settings.url or f"ws://{host}:{settings.port}/ws"
    values = {f: getattr(settings, f) for f in Settings.__dataclass_fields__}
    return Settings(**values | {"server_name": name, "url": url})
