"""Whose turn it is to roll: after an upgrade of the operator all clusters want new servers, and go one at a time.
A roll-out that its own spec caused needs no turn. Pure."""

from __future__ import annotations

from .names import Key

__all__ = ["Turn"]


class Turn:
    """At most one cluster has the turn; it keeps it until it gives it back, also while it is stuck."""

    def __init__(self) -> None:
        self._holder: Key | None = None

    def take(self, key: Key) -> bool:
        """Whether this cluster has the turn now."""
        if self._holder is None:
            self._holder = key
        return self._holder == key

    def holds(self, key: Key) -> bool:
        """Whether this cluster had the turn before and has not given it back."""
        return self._holder == key

    def give_back(self, key: Key) -> None:
        """This cluster needs the turn no more."""
        if self._holder == key:
            self._holder = None
