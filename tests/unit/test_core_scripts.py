# Scripts as they are sent to Redis: each with what it uses of the library, and nothing else of it.
# That they do what they should is tried on real Redis in tests/integration.

import re
from importlib.resources import files

import pytest

from imhelper.core.scripts import load

LUA = files("imhelper") / "lua"
LIBRARY = (LUA / "lib.lua").read_text("utf-8")
SCRIPTS = sorted(path.name.removesuffix(".lua") for path in LUA.iterdir() if path.name != "lib.lua")
DEFINED = {
    name for names in re.findall(r"^local (?:function )?([\w, ]+)", LIBRARY, re.MULTILINE) for name in names.split(", ")
}


def _code(source: str) -> str:
    return re.sub(r"--.*", "", source)


def _own(source: str) -> set[str]:
    """What a source defines at its top level, in front of the script itself."""
    return {
        n.strip()
        for names in re.findall(r"^local (?:function )?([\w, ]+)", source, re.MULTILINE)
        for n in names.split(",")
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_all_of_the_library_that_it_uses_directly_or_not(name):
    source = load(name).source
    used = DEFINED & set(re.findall(r"\w+", _code(source)))
    assert used <= _own(source)
    # In the library's order: Lua knows a local function only below its definition.
    library = source[: source.index((LUA / f"{name}.lua").read_text("utf-8"))].removeprefix("#!lua flags=allow-oom\n")
    places = [LIBRARY.index(paragraph) for paragraph in library.rstrip("\n").split("\n\n")]
    assert places == sorted(places)


def test_a_short_script_brings_nothing_else():
    assert _own(load("mint").source) == {"T", "gen"}
    assert "offline" not in _own(load("send").source) and "append" in _own(load("send").source)


def test_flags_stay_in_the_first_line():
    assert load("beat").source.startswith("#!lua flags=allow-oom\n--")
    assert load("send").source.startswith("--")
