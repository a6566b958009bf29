"""The SDK of ImCluster: business services send to and look after WebSocket clients through it.

It speaks to Redis only; no other service is needed. This is the asyncio form; `imhelper.sync` is the blocking one.
"""

from ._async.events import Subscription
from ._async.helper import ImHelper
from ._models import ChanOnline, SendEvent, Server
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

__version__ = "0.1.0"
