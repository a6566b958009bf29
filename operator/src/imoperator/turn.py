"""Whose turn it is to roll: after an upgrade of the operator all clusters want new servers, and go one at a time.
A roll-out that its own spec caused needs no turn. Pure."""

from __future__ import annotations

from .names import Key

__all__ = ["Turn"]


class Turn:
    """At most one cluster has the turn; it keeps it until it gives it back, also while it is stuck.

    Who had it before the operator began is seen by its being in mid-rollout: until all clusters that are `expected`
    were `heard`, only such a one gets it.
    """

    def __init__(self) -> None:
        self._holder: Key | None = None
        self._unheard: set[Key] = set()

    def expect(self, key: Key) -> None:
        """This cluster is looked after from now on, and may be in mid-rollout."""
        self._unheard.add(key)

    def heard(self, key: Key) -> None:
        """This cluster has asked for the turn if it is in mid-rollout, or can't be asked."""
        self._unheard.discard(key)

    def take(self, key: Key, *, under_way: bool) -> bool:
        """Whether this cluster has the turn now. `under_way` says that it is in mid-rollout."""
        if self._holder is None and (under_way or not self._unheard):
            self._holder = key
        return self._holder == key

    def holds(self, key: Key) -> bool:
        """Whether this cluster had the turn before and has not given it back."""
        return self._holder == key

    def give_back(self, key: Key) -> None:
        """This cluster needs the turn no more."""
        if self._holder == key:
            self._holder = None
