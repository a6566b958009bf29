"""The errors of ImCluster's Python packages: one tree, nothing else leaves the helper.
A file of its own so that every layer can raise them without importing another.

ImError
├── NoServerError            no active server (or no topology yet)
├── TopologyError            the topology in Redis can't be used by this version
├── MessageError             too large or not encodable; nothing was sent
├── RedisUnavailableError    Redis did not answer, or refused; carries what a retry needs
├── InvalidIdError           a client id, channel or prefix is bad   (also a ValueError)
└── SettingError             an argument or setting is bad           (also a ValueError)
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ImError",
    "InvalidIdError",
    "MessageError",
    "NoServerError",
    "RedisUnavailableError",
    "SettingError",
    "TopologyError",
]


class ImError(Exception):
    """Base of every error that ImCluster raises on purpose."""


class NoServerError(ImError):
    """No active imserver is known: none started yet, or all are dead or draining."""


class TopologyError(ImError):
    """The published topology can't be used; the text names both formats or what is wrong."""


class MessageError(ImError):
    """The message is too large or can't be encoded. Raised before anything is sent."""


class InvalidIdError(ImError, ValueError):
    """A client id, channel or prefix that breaks the rules of the contract; the text says which rule."""


class SettingError(ImError, ValueError):
    """An argument or setting with a bad value; the text names it and what is allowed."""


class RedisUnavailableError(ImError):
    """Redis did not answer within the timeout, or refused the command; `__cause__` tells why.

    For a send, `message_id` and `idempotency_key` identify it and `uncovered` lists the receivers
    (or, for a channel, the channel) not known to be covered. Repeating the send with that key
    within 5 minutes gives the same id and reaches each receiver once.
    """

    def __init__(
        self,
        text: str,
        *,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        uncovered: Sequence[str] = (),
    ) -> None:
        super().__init__(text)
        self.message_id = message_id
        self.idempotency_key = idempotency_key
        self.uncovered = tuple(uncovered)
