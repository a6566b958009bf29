"""What the chart tells the operator: environment variables named IMOPERATOR_*, checked once at the start.
A bad value stops the start with one line that names the variable, the value and what is allowed."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imhelper.errors import SettingError

from .model import Defaults

__all__ = ["Settings", "load_settings"]

PREFIX = "IMOPERATOR_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings with their defaults; each field is IMOPERATOR_<NAME>. Times are in seconds."""

    namespace: str = "default"
    """Where the operator runs; its Lease is there."""
    identity: str = ""
    """Who holds the Lease; by default the pod's name and a random part."""
    lease_name: str = "imoperator"
    watch_namespaces: tuple[str, ...] = ()
    """Where ImClusters are looked after; empty means everywhere."""
    image: str = "imserver:dev"
    """The servers' image where an ImCluster names none."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    run_as_user: int | None = 10001
    """The servers' numeric user and group; `platform` lets admission choose them, as OpenShift does."""
    port: int = 9600
    """/healthz, /readyz and /metrics."""
    resync_seconds: float = 30.0
    log_level: str = "info"
    log_format: str = "json"

    @property
    def defaults(self) -> Defaults:
        """What ImClusters get that do not say it themselves."""
        return Defaults(self.image, self.image_pull_policy, self.image_pull_secrets, run_as_user=self.run_as_user)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(n.strip() for n in text.split(",") if n.strip())
    if not all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", n) for n in names):
        raise ValueError
    return names


def _name(text: str) -> str:
    (name,) = _names(text)
    return name


def _text(text: str) -> str:
    if not 1 <= len(text) <= 1024 or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return parse


def _user(text: str) -> int | None:
    return None if text == "platform" else _whole(1, 2**31 - 1)(text)


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return parse


_RULES: dict[str, tuple[str, Callable[[str], object]]] = {
    "namespace": ("the name of a namespace", _name),
    "identity": ("a name without spaces", _text),
    "lease_name": ("the name of a Lease", _name),
    "watch_namespaces": ("names of namespaces, separated by commas", _names),
    "image": ("the name of an image", _text),
    "image_pull_policy": ("one of Always, IfNotPresent, Never", _choice("Always", "IfNotPresent", "Never")),
    "image_pull_secrets": ("names of Secrets, separated by commas", _names),
    "run_as_user": ("a whole number from 1 to 2147483647, or platform", _user),
    "port": ("a whole number from 1 to 65535", _whole(1, 65535)),
    "resync_seconds": ("a number from 1 to 3600", _seconds(1, 3600)),
    "log_level": ("one of debug, info, warning, error", _choice("debug", "info", "warning", "error")),
    "log_format": ("one of text, json", _choice("text", "json")),
}


def load_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment; an empty variable counts as absent. Raises SettingError."""
    values: dict[str, object] = {}
    for name, (allowed, parse) in _RULES.items():
        variable = PREFIX + name.upper()
        text = environment.get(variable, "")
        if not text:
            continue
        try:
            values[name] = parse(text)
        except ValueError:
            raise SettingError(f"{variable} must be {allowed}, not {text!r}") from None
    values.setdefault("identity", f"{socket.gethostname()}_{secrets.token_hex(4)}")
    return Settings(**values)  # type: ignore[arg-type]
