"""What the helper returns and hands to callbacks: small records, the same in both forms.
They are part of the public API and re-exported by the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["ChanOnline", "SendEvent", "Server"]


class ChanOnline(NamedTuple):
    """A channel and how many of its members are online."""

    chan: str
    online: int


@dataclass(frozen=True, slots=True)
class SendEvent:
    """What an `on_send` hook is told before a send is published.

    Attributes:
        sender: the client id given as the sender.
        receivers: the receivers of `send_message`, each once; empty for a channel message.
        chan: the channel of `send_chan_message`, else None.
        message: the message as the caller gave it.
        servers: names of the servers that the table gives for the receivers (for a channel: all of the table).
    """

    sender: str
    receivers: tuple[str, ...]
    chan: str | None
    message: object
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """One imserver as Redis knows it.

    Attributes:
        name: its name.
        url: its public WebSocket URL, without a token.
        state: `active` or `draining`.
        connections: sockets it held at its last beat.
        lease_age: seconds since its last beat on Redis's clock; None when it has no lease (it never started, ended
            in order, or was reclaimed).
    """

    name: str
    url: str
    state: str
    connections: int
    lease_age: float | None
