"""The XREAD of a reader in its wire form: of the many keys and ids only those are packed that changed since the last.
Pure and on the hot path: 128 slots are some 8 KB a read, up to 200 times a second."""

from __future__ import annotations

from .state import Slot

__all__ = ["Question"]


class Question:
    """What a reader asks: what is new in its wake stream and in the logs of `slots`, after what was read of each."""

    def __init__(self, wake_key: bytes) -> None:
        self._wake_key = wake_key
        self.slots: list[Slot] = []
        self.by_key: dict[bytes, Slot] = {}
        # Of each slot: the last id asked for, and its wire form.
        self._ids: list[tuple[bytes | None, bytes]] = []
        self._keys = b""
        self.ask_for([])

    def ask_for(self, slots: list[Slot]) -> None:
        """Ask for these slots from now on."""
        if slots == self.slots and self._keys:
            return
        self.slots = slots
        self.by_key = {slot.key: slot for slot in slots}
        self._ids = [(None, b"")] * len(slots)
        self._keys = b"".join(map(_wire, (b"STREAMS", self._wake_key, *self.by_key)))

    def packed(self, count: int, block_ms: int | None, wake_id: bytes) -> bytes:
        """The command: at most `count` entries a stream; waits for `block_ms`, or with None not at all."""
        head: tuple[str | int, ...] = ("XREAD", "COUNT", count)
        if block_ms is not None:
            head = (*head, "BLOCK", block_ms)
        # An id is a new object whenever it changes, so that a look at which one it is will do.
        self._ids = ids = [
            known if known[0] is slot.read else (slot.read, _wire(slot.read))
            for slot, known in zip(self.slots, self._ids, strict=True)
        ]
        size = b"*%d\r\n" % (len(head) + 3 + 2 * len(ids))
        return b"".join((size, *map(_wire, head), self._keys, _wire(wake_id), *[wire for _, wire in ids]))


def _wire(arg: str | bytes | int) -> bytes:
    raw = arg if isinstance(arg, bytes) else str(arg).encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)
