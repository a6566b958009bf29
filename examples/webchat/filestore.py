# Files on their way from one user to another: a temporary folder with a bound on its size and on each file's life.
# A file is found by an unguessable token only; what users call it never becomes a path.
from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import BadInput

_MAX_FILE_NAME = 120


@dataclass(slots=True)
class Transfer:
    """One file: first being received, then complete and downloadable until it expires."""

    id: str
    token: str
    name: str
    size: int
    path: Path
    received: int = 0
    expires: float = 0.0
    complete: bool = False
    _out: BinaryIO | None = None

    def write(self, chunk: bytes) -> None:
        """Append what arrived. Raises BadInput when it is more than was announced."""
        if self.received + len(chunk) > self.size:
            raise BadInput("The file is larger than its Content-Length said.", 413)
        if self._out is None:
            self._out = self.path.open("wb")
        self._out.write(chunk)
        self.received += len(chunk)

    def close(self) -> None:
        """Close the file on disk; the transfer is complete if everything announced is there."""
        if self._out is None:
            self.path.touch()
        else:
            self._out.close()
            self._out = None
        self.complete = self.received == self.size


class FileStore:
    """Stored files, bounded in number of bytes and in time.

    root: a folder of its own that exists before the first file is written. max_bytes, total_bytes: bounds of one file
    and of all. seconds: a file's life from the start of its upload. clock: seconds, only ever growing.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        total_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self.max_bytes = max_bytes
        self._total_bytes = total_bytes
        self.seconds = seconds
        self._clock = clock
        self._by_token: dict[str, Transfer] = {}

    def reserve(self, name: str, size: int) -> Transfer:
        """Make room for a file before its first byte is read.

        Raises BadInput with 413 (larger than one file may be) or 507 (no room at present).
        """
        if size > self.max_bytes:
            raise BadInput(f"The file has {size} bytes; at most {self.max_bytes} can be sent.", 413)
        self.expire()
        if sum(transfer.size for transfer in self._by_token.values()) + size > self._total_bytes:
            raise BadInput("There is no room for more files just now; older ones make room in a few minutes.", 507)
        token = secrets.token_urlsafe(24)
        transfer = Transfer(
            id=secrets.token_hex(8),
            token=token,
            name=clean_file_name(name),
            size=size,
            path=self._root / secrets.token_hex(16),
            expires=self._clock() + self.seconds,
        )
        self._by_token[token] = transfer
        return transfer

    def find(self, token: str) -> Transfer | None:
        """The complete file that a link names, or None when there is none or it expired."""
        self.expire()
        transfer = self._by_token.get(token)
        return transfer if transfer is not None and transfer.complete else None

    def remove(self, transfer: Transfer) -> None:
        """Forget a file and free its room; what is being downloaded just now still arrives."""
        if self._by_token.pop(transfer.token, None) is not None:
            transfer.close()
            transfer.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Remove the files whose time is over. An upload that is still running ends by its own deadline."""
        now = self._clock()
        for transfer in [t for t in self._by_token.values() if t.complete and t.expires <= now]:
            self.remove(transfer)


def clean_file_name(name: str) -> str:
    """A file name without folders and control characters, never empty and of bounded length, its ending kept."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(char for char in base if char.isprintable()).strip(". ")
    if len(printable) > _MAX_FILE_NAME:
        stem, dot, ending = printable.rpartition(".")
        kept = dot + ending if stem and len(ending) <= 12 else ""
        printable = printable[: _MAX_FILE_NAME - len(kept)] + kept
    return printable or "file"
