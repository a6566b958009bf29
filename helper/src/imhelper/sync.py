"""The blocking form of the helper, for Flask, Django, Celery and scripts: `from imhelper.sync import ImHelper`.
It has the same names and meaning as the asyncio form; it starts no thread unless `event_bus` is used."""

from ._models import ChanOnline, SendEvent, Server
from ._sync.events import Subscription
from ._sync.helper import ImHelper
from .core.topology import Limits, ServerEntry, Topology
from .errors import (
    ImError,
    InvalidIdError,
    MessageError,
    NoServerError,
    RedisUnavailableError,
    SettingError,
    TopologyError,
)

__all__ = [
    "ChanOnline",
    "ImError",
    "ImHelper",
    "InvalidIdError",
    "Limits",
    "MessageError",
    "NoServerError",
    "RedisUnavailableError",
    "SendEvent",
    "Server",
    "ServerEntry",
    "SettingError",
    "Subscription",
    "Topology",
    "TopologyError",
]
