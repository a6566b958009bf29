"""The Lua scripts as files of the package, each with what it uses of the shared library in front.
Every script takes its tag as KEYS[1] and is safe to repeat, so that a lost reply can be asked for again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["Script", "load"]

# What keeps presence true, or ends it, goes on when maxmemory is reached: leases, canaries, places, cursors of event
# groups. Each writes little, and replaces what it wrote before. (https://redis.io/docs/latest/develop/programmability/)
_IN_FULL_MEMORY = "#!lua flags=allow-oom\n"
_GO_ON = frozenset(
    {"beat", "boot", "disconnect", "events_done", "events_lease", "events_members"}
    | {"positions", "publish", "publisher", "restore", "verify", "wake"}
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its name, its whole text and the SHA-1 that EVALSHA wants."""

    name: str
    source: str = field(repr=False)
    sha: str


@cache
def load(name: str) -> Script:
    """The script `lua/<name>.lua` of this package, after what it uses of `lua/lib.lua` and the flags that it needs."""
    folder = files("imhelper") / "lua"
    flags = _IN_FULL_MEMORY if name in _GO_ON else ""
    script = (folder / f"{name}.lua").read_text("utf-8")
    source = flags + _used((folder / "lib.lua").read_text("utf-8"), script) + script
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _used(library: str, script: str) -> str:
    """The paragraphs of the library that a script uses, directly or through others.

    Redis makes all functions of a script anew at each call: those of the whole library take longer than a short script.
    """
    words, taken = _words(script), []
    for paragraph in reversed(library.split("\n\n")):
        names = ",".join(re.findall(r"^local (?:function )?([\w, ]+)", paragraph, re.MULTILINE))
        if not words.isdisjoint(re.findall(r"\w+", names)):
            taken.append(paragraph.rstrip("\n") + "\n\n")
            words |= _words(paragraph)
    return "".join(reversed(taken))


def _words(code: str) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"--.*", "", code)))
