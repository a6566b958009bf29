"""The Lua scripts as files of the package, each with the shared library in front.
Every script takes its tag as KEYS[1] and is safe to repeat, so that a lost reply can be asked for again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["Script", "load"]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its name, its whole text and the SHA-1 that EVALSHA wants."""

    name: str
    source: str = field(repr=False)
    sha: str


@cache
def load(name: str) -> Script:
    """The script `lua/<name>.lua` of this package, after the text of `lua/lib.lua`."""
    folder = files("imhelper") / "lua"
    source = (folder / "lib.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())
