# Reading what callers send: forms as ImCore's front ends post them, and the rules for names.
# ASP.NET matches field names whatever their case, and ImCore's own page relies on it (`websocketid`).
from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import Request

from .errors import BadInput

RESERVED = "~"
"""Ids and rooms that begin with this belong to the web chat itself (its lobby, its own sender id)."""
MAX_BODY_BYTES = 512 * 1024
"""The largest form that is read; the cluster's own limit for a message is far below."""
MAX_NAME_CHARS = 40


class Form:
    """A posted form whose fields are found whatever the case of their names."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def text(self, name: str) -> str:
        """The field's value. Raises BadInput when it is absent or empty."""
        value = self.optional(name)
        if value is None:
            raise BadInput(f"The field {name} is missing or empty.")
        return value

    def optional(self, name: str) -> str | None:
        """The field's value, or None when it is absent or empty."""
        values = self._fields.get(name.lower())
        return values[0] if values and values[0] else None

    def client(self, name: str) -> str:
        """An id of a client; imhelper checks its form, only reserved ids are refused here."""
        return _unreserved(self.text(name), "An id")

    def channel(self, name: str = "channel") -> str:
        """The name of a room; imhelper checks its form, only reserved names are refused here."""
        return _unreserved(self.text(name), "A room's name")

    def channels(self, name: str, limit: int) -> list[str]:
        """The rooms of a field that may be repeated. Raises BadInput past `limit`."""
        values = [value for value in self._fields.get(name.lower(), []) if value]
        if len(values) > limit:
            raise BadInput(f"The field {name} may be given at most {limit} times.")
        return [_unreserved(value, "A room's name") for value in values]

    def flag(self, name: str) -> bool:
        """True for what forms send as yes: true, 1, on, yes."""
        return (self.optional(name) or "").lower() in {"true", "1", "on", "yes"}


def _unreserved(value: str, what: str) -> str:
    if value.startswith(RESERVED):
        raise BadInput(f"{what} may not begin with {RESERVED}: these are the web chat's own.")
    return value


async def read_form(request: Request) -> Form:
    """Read a form (urlencoded or multipart, without files) of at most MAX_BODY_BYTES.

    Raises BadInput when it is larger (413) or holds a file.
    """
    size = 0
    chunks = []
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BadInput(f"The form is larger than {MAX_BODY_BYTES} bytes.", 413)
        chunks.append(chunk)
    body = b"".join(chunks)

    async def replay() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    fields: list[tuple[str, str]] = []
    async with Request(request.scope, replay).form(max_files=0) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                raise BadInput(f"The field {name} must be text.")
            fields.append((name, value))
    return Form(fields)


def clean_name(name: str | None) -> str:
    """A display name as others see it: printable, one line, at most MAX_NAME_CHARS characters, possibly empty."""
    printable = "".join(char if char.isprintable() else " " for char in name or "")
    return " ".join(printable.split())[:MAX_NAME_CHARS]
